#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs in a guest: mixed load for so many seconds, in rounds. What a round computes is the same each time, and
# so must be its checksums; stress-ng checks its own work. One line a round, one at the end:
#
#	soak: round 3: 4012345678 ...
#	soak: ended: 42 rounds
#	soak: WRONG: ...
set -u
end=$(($(date +%s) + $1))
work=/root/soak
trouble='WARNING|BUG|Oops|stall|lockup|blocked for more|Call Trace|unstable|segfault|traps:|general protection'
trouble="$trouble|EXT4-fs error|Out of memory"
java=/usr/lib/jvm/java-17-openjdk-amd64/bin/java

wrong() {
	echo "soak: WRONG: $*"
	exit 1
}

sources() {
	mkdir -p "$work/tree" && cd "$work/tree" || exit 1
	for n in $(seq 40); do
		cat >"part$n.c" <<-END
			#include <stdint.h>
			#include <string.h>
			struct item { uint64_t key, value; char name[24]; };
			static int compare(const struct item *a, const struct item *b)
			{
				return a->key < b->key ? -1 : a->key > b->key ? 1 : strcmp(a->name, b->name);
			}
			uint64_t part$n(uint64_t seed)
			{
				struct item items[64];
				uint64_t sum = 0;
				double mean = 0;
				for (unsigned k = 0; k < 64; k++) {
					seed = seed * 6364136223846793005u + 1442695040888963407u + $n;
					items[k].key = seed >> 33;
					items[k].value = seed ^ seed >> 7;
					memset(items[k].name, 'a' + (int)(seed >> 60), 20);
					items[k].name[20] = 0;
				}
				for (unsigned a = 1; a < 64; a++)
					for (unsigned b = a; b && compare(&items[b - 1], &items[b]) > 0; b--) {
						struct item t = items[b];
						items[b] = items[b - 1];
						items[b - 1] = t;
					}
				for (unsigned k = 0; k < 64; k++) {
					sum = sum * 31 + items[k].value;
					mean += (double)items[k].key / (k + $n);
				}
				return sum ^ (uint64_t)mean;
			}
		END
	done
	{
		echo '#include <stdint.h>'
		echo '#include <stdio.h>'
		for n in $(seq 40); do echo "uint64_t part$n(uint64_t seed);"; done
		echo 'int main(void) { uint64_t s = 1; for (int k = 0; k < 2000; k++) {'
		for n in $(seq 40); do echo "s += part$n(s);"; done
		printf '%s\n' '} printf("%llu\n", (unsigned long long)s); }'
	} >main.c
	cat >Makefile <<-'END'
		.RECIPEPREFIX = >
		objects = $(patsubst %.c,%.o,$(wildcard *.c))
		program: $(objects)
		>gcc -o $@ $(sort $(objects))
		%.o: %.c
		>gcc -O2 -Wall -c -o $@ $<
	END
	mkdir -p "$work/java" && cd "$work/java" || exit 1
	cat >Load.java <<-'END'
		import java.util.*;
		import java.util.stream.*;
		public class Load {
			public static void main(String[] args) throws Exception {
				long sum = 0;
				for (int round = 0; round < 12; round++) {
					Random random = new Random(round);
					Map<String, Long> map = new TreeMap<>();
					for (int k = 0; k < 60000; k++)
						map.merge("key" + random.nextInt(20000), (long) k, Long::sum);
					sum = sum * 31 + map.hashCode();
					sum += LongStream.range(0, 2000000).parallel().map(x -> x * x ^ x >> 3).sum();
					long[] part = new long[4];
					Thread[] threads = new Thread[4];
					for (int t = 0; t < 4; t++) {
						final int n = t;
						threads[t] = new Thread(() -> {
							StringBuilder text = new StringBuilder();
							for (int k = 0; k < 40000; k++)
								text.append(Math.sqrt(k * (n + 1.5))).append(',');
							part[n] = text.toString().hashCode();
						});
						threads[t].start();
					}
					for (Thread t : threads)
						t.join();
					sum += Arrays.hashCode(part);
				}
				System.out.println(sum);
			}
		}
	END
	cat >"$work/load.py" <<-'END'
		import hashlib, json, random, re, threading, zlib
		r = random.Random(1)
		things = [{"n": r.randrange(10**9), "s": "%x" % r.getrandbits(200), "f": r.random()} for _ in range(20000)]
		text = json.dumps(sorted(things, key=lambda t: (t["s"], t["n"])))
		assert json.loads(text) == sorted(things, key=lambda t: (t["s"], t["n"]))
		packed = zlib.compress(text.encode(), 6)
		assert zlib.decompress(packed).decode() == text
		words = {}
		for word in re.findall(r"[a-f]{2,4}", text):
		    words[word] = words.get(word, 0) + 1
		done = [None] * 4
		def work(n):
		    done[n] = sum(pow(k, 65537, (1 << 127) - 1 - n) for k in range(3000)) % (1 << 64)
		threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
		[t.start() for t in threads]
		[t.join() for t in threads]
		print(hashlib.sha256(repr((text, sorted(words.items()), done, packed.hex())).encode()).hexdigest())
	END
}

compile() {
	cd "$work/tree" && rm -f ./*.o program && make -s -j2 && cat ./*.o program | cksum && ./program
}

run_python() {
	python3 "$work/load.py"
}

run_java() {
	cd "$work/java" && rm -f ./*.class &&
		$java -Xmx256m -m jdk.compiler/com.sun.tools.javac.Main -d . Load.java &&
		cat ./*.class | cksum && $java -Xmx256m -cp . Load
}

# Methods of stress-ng's cpu class, one a round.
mapfile -t methods < <(stress-ng --cpu-method list 2>&1 | sed 's/.*://' | tr ' ' '\n' | grep -vxE 'all|')
[ "${#methods[@]}" -gt 20 ] || wrong "stress-ng has these methods: ${methods[*]}"

# It does not tell by its exit status that a stressor was killed.
run_stress() {
	stress-ng --verify --timeout 20s --cpu 1 --cpu-method "${methods[round % ${#methods[@]}]}" --vm 1 \
		--vm-bytes 96M --fork 2 --temp-path /tmp && ! grep -E 'fail|unexpected signal' "$work/stress.out"
}

sources
first=
round=0
while [ "$(date +%s)" -lt "$end" ]; do
	round=$((round + 1))
	compile >"$work/compile.out" 2>&1 & jobs=$!
	run_python >"$work/python.out" 2>&1 & jobs="$jobs $!"
	run_java >"$work/java.out" 2>&1 & jobs="$jobs $!"
	run_stress >"$work/stress.out" 2>&1 & jobs="$jobs $!"
	for job in $jobs; do
		wait "$job" || wrong "round $round: $(tail -n 20 "$work"/*.out)"
	done
	sums=$(cat "$work"/compile.out "$work"/python.out "$work"/java.out | tr '\n' ' ')
	echo "soak: round $round: $sums"
	first=${first:-$sums}
	[ "$sums" = "$first" ] || wrong "round $round: not what the first has"
	bad=$(dmesg | grep -E "$trouble")
	[ -z "$bad" ] || wrong "round $round: $bad"
done
echo "soak: ended: $round rounds"
