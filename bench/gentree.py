# SPDX-License-Identifier: Apache-2.0
"""Writes the C sources that the gcc and make workloads compile. The same every time, from a fixed seed."""

import os

FILES = 8
FUNCTIONS = 10
LARGE_FUNCTIONS = 30


class Random:
    """A linear congruential generator (Knuth's MMIX constants); Python's own may change."""

    def __init__(self, seed):
        self.state = seed

    def below(self, limit):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 33) % limit


def loop(r, name):
    return f"""
static unsigned {name}(const unsigned *v, unsigned n)
{{
	unsigned sum = {r.below(1000)};

	for (unsigned i = 0; i < n; i++) {{
		if (v[i] % {r.below(7) + 2} == 0)
			sum += v[i] * {r.below(90) + 3};
		else if (v[i] & {1 << r.below(8)})
			sum ^= v[i] << {r.below(9)};
		else
			sum -= v[(i + {r.below(50)}) % n];
	}}
	return sum;
}}
"""


def switch(r, name):
    cases = "".join(
        f"\tcase {i}:\n\t\ta = a * {r.below(99) + 1} + b;\n\t\tbreak;\n"
        for i in range(6 + r.below(8))
    )
    return f"""
static unsigned {name}(const unsigned *v, unsigned n)
{{
	unsigned a = {r.below(1000)}, b = n;

	while (b--)
		switch (v[b] % 20) {{
{cases}	default:
			a ^= b << {r.below(6) + 1};
		}}
	return a;
}}
"""


def structure(r, name):
    return f"""
struct {name}_node {{
	struct {name}_node *left, *right;
	unsigned key, count;
}};

static void {name}_insert(struct {name}_node **at, struct {name}_node *node)
{{
	while (*at && (*at)->key != node->key)
		at = node->key < (*at)->key ? &(*at)->left : &(*at)->right;
	if (*at)
		(*at)->count += {r.below(9) + 1};
	else
		*at = node;
}}

static unsigned {name}_sum(const struct {name}_node *at, unsigned depth)
{{
	return at ? {name}_sum(at->left, depth + 1) + at->key * at->count + depth +
		    {name}_sum(at->right, depth + 1) : 0;
}}

static unsigned {name}(const unsigned *v, unsigned n)
{{
	struct {name}_node nodes[{32 + r.below(64)}], *root = 0;
	unsigned count = sizeof(nodes) / sizeof(nodes[0]);

	for (unsigned i = 0; i < count; i++) {{
		nodes[i] = (struct {name}_node){{ 0, 0, v[i % n] % {r.below(900) + 100}, 1 }};
		{name}_insert(&root, &nodes[i]);
	}}
	return {name}_sum(root, 0);
}}
"""


def numbers(r, name):
    return f"""
static unsigned {name}(const unsigned *v, unsigned n)
{{
	double m[{4 + r.below(5)}][8] = {{ {{ 0 }} }}, sum = 0;
	unsigned rows = sizeof(m) / sizeof(m[0]);

	for (unsigned i = 0; i < n; i++)
		m[i % rows][i % 8] += (double)(v[i] % 1000) / {r.below(20) + 2};
	for (unsigned i = 0; i < rows; i++)
		for (unsigned j = 0; j < 8; j++)
			sum += m[i][j] * (i + {r.below(5) + 1}) - m[(i + 1) % rows][7 - j];
	return (unsigned)(long)sum + (unsigned)strlen("{name}");
}}
"""


def source(number, functions):
    r = Random(number + 1)
    kinds = [loop, switch, structure, numbers]
    names = [f"f{number}_{i}" for i in range(functions)]
    text = "#include <string.h>\n#include <stdio.h>\n#include <stdlib.h>\n"
    text += "".join(kinds[r.below(4)](r, name) for name in names)
    calls = "".join(f"\tsum = sum * 31 + {name}(v, n);\n" for name in names)
    return text + f"\nunsigned file{number}(const unsigned *v, unsigned n)\n{{\n\tunsigned sum = 0;\n\n{calls}\treturn sum;\n}}\n"


MAIN = """#include <stdio.h>

#define FILE_FUNCTION(n) unsigned file##n(const unsigned *v, unsigned n2) __attribute__((weak));
%s
int main(void)
{
	unsigned (*files[])(const unsigned *, unsigned) = { %s };
	unsigned v[500], sum = 0;

	for (unsigned i = 0; i < 500; i++)
		v[i] = i * 2654435761u >> 8;
	for (unsigned i = 0; i < sizeof(files) / sizeof(files[0]); i++)
		if (files[i])
			sum = sum * 17 + files[i](v, 500);
	printf("%%u\\n", sum);
	return 0;
}
"""

MAKEFILE = """# The file `use` lists the sources to build.
SOURCES = main.c $(shell cat use)

program: $(SOURCES:.c=.o)
\tgcc -o $@ $^

%.o: %.c
\tgcc -O2 -c -o $@ $<
"""


def write_tree(folder):
    os.makedirs(folder, exist_ok=True)

    def write(name, text):
        with open(os.path.join(folder, name), "w", encoding="ascii") as file:
            file.write(text)

    for number in range(FILES):
        write(f"f{number}.c", source(number, FUNCTIONS))
    write("f-large.c", source(FILES, LARGE_FUNCTIONS))
    numbers_ = range(FILES)
    write("main.c", MAIN % ("\n".join(f"FILE_FUNCTION({n})" for n in numbers_),
                            ", ".join(f"file{n}" for n in numbers_)))
    write("files", "".join(f"f{n}.c\n" for n in numbers_))
    write("Makefile", MAKEFILE)
