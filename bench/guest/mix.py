# SPDX-License-Identifier: Apache-2.0
"""mix.py N: N rounds of what Python programs do: dictionaries, strings, JSON, patterns, objects, numbers."""

import json
import re
import sys


class Account:
    def __init__(self, name):
        self.name = name
        self.balance = 0

    def move(self, amount):
        self.balance = (self.balance * 33 + amount) % 1000003


def words(count, seed):
    made = []
    for _ in range(count):
        seed = (seed * 1103515245 + 12345) & 0x7FFFFFFF
        made.append("".join(chr(97 + (seed >> shift) % 26) for shift in range(0, 24, 4)))
    return made


def one_round(number):
    made = words(2000, number)
    counts = {}
    for word in made:
        counts[word[:2]] = counts.get(word[:2], 0) + 1
    accounts = {word: Account(word) for word in made[:200]}
    for turn, word in enumerate(made):
        accounts[made[turn % 200]].move(len(word) + turn)
    text = json.dumps({"counts": counts, "balances": [a.balance for a in accounts.values()]})
    back = json.loads(text)
    found = re.findall(r"[aeiou][^aeiou]{2,3}", " ".join(made))
    top = sorted(back["counts"].items(), key=lambda item: (-item[1], item[0]))[:5]
    return sum(back["balances"]) + len(found) + sum(count for _, count in top)


def main():
    print(sum(one_round(number) for number in range(int(sys.argv[1]))))


main()
