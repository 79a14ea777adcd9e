/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine/machine.h: the life cycle, with an engine made for it. Its vCPUs run a script of exits
 * and otherwise count, so that it can be seen whether they stand still, and where.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "machine/machine.h"

#define MIB (UINT64_C(1) << 20)

/* ---- the engine ---- */

enum { CPUS = 3, SCRIPT_MAX = 8 };

struct script_cpu {
	struct vcpu vcpu;
	struct cpu_state s;
	atomic_uint rounds; /* grows while it runs */
	atomic_bool half;   /* an exit was returned whose instruction is not complete */
	atomic_uint boots;  /* set_state calls */
	bool storm;	    /* a port write at every round */
	unsigned at, count; /* of the script */
	struct exit script[SCRIPT_MAX];
	struct exit answer[SCRIPT_MAX]; /* as they came back */
};
static struct script_cpu cpus[CPUS];
static char kernel_path[] = "/tmp/hanok-test-machine-XXXXXX";

static int engine_ok(struct error *why)
{
	(void)why;
	return 0;
}

static int script_create(const struct engine_config *config, struct engine **out, struct error *err)
{
	(void)config, (void)err;
	*out = (struct engine *)cpus;
	return 0;
}

static void script_destroy(struct engine *e)
{
	assert_ptr_equal(e, cpus);
}

static int script_vcpu_create(struct engine *e, unsigned index, const struct vcpu_board *board,
			      struct vcpu **out, struct error *err);

static void script_vcpu_destroy(struct vcpu *v)
{
	(void)v;
}

static bool returns(struct script_cpu *c, struct exit *exit)
{
	uint32_t req = atomic_load(&c->vcpu.requests);

	if (req & VCPU_REQ_KICK) {
		vcpu_unrequest(&c->vcpu, VCPU_REQ_KICK);
		*exit = (struct exit){.cause = EXIT_INTERRUPTED};
		return true;
	}
	if (c->at < c->count) {
		*exit = c->script[c->at];
		atomic_store(&c->half, exit->cause <= EXIT_WRMSR);
		return true;
	}
	if (c->storm) {
		*exit = (struct exit){.cause = EXIT_PIO_OUT, .pio = {.port = 0x80, .size = 1}};
		atomic_store(&c->half, true);
		return true;
	}
	return false;
}

static void script_run(struct vcpu *v, struct exit *exit)
{
	struct script_cpu *c = (struct script_cpu *)v;

	if (c->at < c->count && exit->cause == c->script[c->at].cause)
		c->answer[c->at++] = *exit;
	atomic_store(&c->half, false);
	while (!returns(c, exit)) {
		atomic_fetch_add(&c->rounds, 1);
		usleep(100);
	}
	atomic_fetch_add(&c->rounds, 1);
}

static void script_get_state(struct vcpu *v, struct cpu_state *out)
{
	*out = ((struct script_cpu *)v)->s;
}

static int script_set_state(struct vcpu *v, const struct cpu_state *in, struct error *err)
{
	struct script_cpu *c = (struct script_cpu *)v;

	(void)err;
	c->s = *in;
	atomic_fetch_add(&c->boots, 1);
	return 0;
}

static int script_set_debug(struct vcpu *v, const struct vcpu_debug *debug)
{
	(void)v, (void)debug;
	return 0;
}

static int script_translate(struct vcpu *v, uint64_t gva, uint64_t *gpa)
{
	(void)v, (void)gva, (void)gpa;
	return -EFAULT;
}

static const struct engine_ops script_engine = {
	.name = "script",
	.probe = engine_ok,
	.create = script_create,
	.destroy = script_destroy,
	.vcpu_create = script_vcpu_create,
	.vcpu_destroy = script_vcpu_destroy,
	.run = script_run,
	.get_state = script_get_state,
	.set_state = script_set_state,
	.set_debug = script_set_debug,
	.translate = script_translate,
};

static int script_vcpu_create(struct engine *e, unsigned index, const struct vcpu_board *board,
			      struct vcpu **out, struct error *err)
{
	(void)e, (void)board, (void)err;
	cpus[index].vcpu.ops = &script_engine;
	cpus[index].vcpu.index = index;
	*out = &cpus[index].vcpu;
	return 0;
}

/* ---- a machine around it ---- */

/* A Multiboot kernel of no instructions: nobody runs it. */
static int write_kernel(void **state)
{
	static struct {
		Elf32_Ehdr eh;
		Elf32_Phdr ph;
		uint32_t multiboot[3];
		uint8_t code[64];
	} image = {
		.eh =
			{
				.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB,
					    EV_CURRENT},
				.e_type = ET_EXEC,
				.e_machine = EM_386,
				.e_version = EV_CURRENT,
				.e_entry = 0x100000,
				.e_phoff = sizeof(Elf32_Ehdr),
				.e_ehsize = sizeof(Elf32_Ehdr),
				.e_phentsize = sizeof(Elf32_Phdr),
				.e_phnum = 1,
			},
		.ph = {.p_type = PT_LOAD,
		       .p_vaddr = 0x100000,
		       .p_paddr = 0x100000,
		       .p_filesz = sizeof(image),
		       .p_memsz = sizeof(image),
		       .p_flags = PF_R | PF_X},
		.multiboot = {0x1badb002, 0, -0x1badb002u},
	};
	int fd = mkstemp(kernel_path);

	(void)state;
	if (fd < 0 || write(fd, &image, sizeof(image)) != sizeof(image))
		return -1;
	return close(fd);
}

static int remove_kernel(void **state)
{
	(void)state;
	return unlink(kernel_path);
}

static struct loop *loop;
static struct machine *machine;
static struct machine_result result;
static pthread_t runner;

static void *run(void *opaque)
{
	(void)opaque;
	machine_run(machine, &result);
	return NULL;
}

static void make(bool no_reboot)
{
	struct machine_config config = {
		.loop = loop,
		.engine = &script_engine,
		.memory_bytes = 16 * MIB,
		.cpus = CPUS,
		.boot = {.kernel_path = kernel_path},
		.no_reboot = no_reboot,
	};
	struct error err = {0};

	if (machine_create(&machine, &config, &err))
		fail_msg("%s", err.text);
}

static int setup(void **state)
{
	(void)state;
	memset(cpus, 0, sizeof(cpus));
	memset(&result, 0, sizeof(result));
	return loop_create(&loop, NULL);
}

static int teardown(void **state)
{
	(void)state;
	machine_destroy(machine);
	machine = NULL;
	loop_destroy(loop);
	return 0;
}

static void start(void)
{
	assert_int_equal(pthread_create(&runner, NULL, run, NULL), 0);
}

static void join(void)
{
	assert_int_equal(pthread_join(runner, NULL), 0);
}

static void stop(void)
{
	machine_stop(machine, MACHINE_QUIT, "enough");
	join();
	assert_int_equal(result.end, MACHINE_QUIT);
}

static void until_it_runs(unsigned cpu)
{
	unsigned before = atomic_load(&cpus[cpu].rounds);

	while (atomic_load(&cpus[cpu].rounds) == before)
		usleep(100);
}

static bool stands_still(unsigned cpu)
{
	unsigned before = atomic_load(&cpus[cpu].rounds);

	usleep(5000);
	return atomic_load(&cpus[cpu].rounds) == before;
}

static void script(unsigned cpu, struct exit e)
{
	cpus[cpu].script[cpus[cpu].count++] = e;
}

/* ---- tests ---- */

static void paused_between_instructions(void **state)
{
	(void)state;
	make(false);
	cpus[1].storm = true;
	start();
	for (int i = 0; i < 50; i++) {
		for (unsigned c = 0; c < CPUS; c++)
			until_it_runs(c);
		machine_pause(machine);
		for (unsigned c = 0; c < CPUS; c++)
			assert_false(atomic_load(&cpus[c].half));
		if (i % 10 == 0)
			assert_true(stands_still(0) && stands_still(1) && stands_still(2));
		machine_resume(machine);
	}
	stop();
}

static void pauses_nest(void **state)
{
	(void)state;
	make(false);
	start();
	until_it_runs(0);
	machine_pause(machine);
	machine_pause(machine);
	machine_resume(machine);
	assert_true(stands_still(0));
	machine_resume(machine);
	until_it_runs(0);
	machine_pause(machine);
	stop(); /* also while paused */
}

static void starts_paused(void **state)
{
	(void)state;
	make(false);
	machine_pause(machine);
	start();
	assert_true(stands_still(0));
	assert_int_equal(atomic_load(&cpus[0].rounds), 0);
	machine_resume(machine);
	until_it_runs(0);
	stop();
}

static void one_cpu_is_held(void **state)
{
	(void)state;
	make(false);
	start();
	machine_pause(machine);
	machine_hold_cpu(machine, 1, true);
	machine_resume(machine);
	until_it_runs(0);
	until_it_runs(2);
	assert_true(stands_still(1));
	machine_pause(machine);
	machine_hold_cpu(machine, 1, false);
	machine_resume(machine);
	until_it_runs(1);
	stop();
}

static void a_halted_cpu_can_be_paused(void **state)
{
	(void)state;
	make(false);
	script(0, (struct exit){.cause = EXIT_HLT, .hlt = {.wake_mask = VCPU_REQ_IRQ}});
	start();
	while (!atomic_load(&cpus[0].rounds))
		usleep(100);
	machine_pause(machine);
	machine_resume(machine);
	stop();
	assert_int_equal(cpus[0].vcpu.stats.count[EXIT_HLT], 1);
}

static atomic_uint resets, starts, ends;

static void note_event(void *opaque, enum machine_event event)
{
	(void)opaque;
	switch (event) {
	case MACHINE_EVENT_STARTED:
		atomic_fetch_add(&starts, 1);
		break;
	case MACHINE_EVENT_RESET:
		atomic_fetch_add(&resets, 1);
		break;
	case MACHINE_EVENT_ENDED:
		atomic_fetch_add(&ends, 1);
		break;
	}
}

static const struct machine_hooks event_hooks = {.event = note_event};

static void reset_boots_again(void **state)
{
	(void)state;
	resets = starts = ends = 0;
	make(true); /* which is about the guest's own resets */
	machine_add_hooks(machine, &event_hooks);
	cpus[2].storm = true;
	start();
	for (unsigned i = 1; i <= 5; i++) {
		cpus[0].s.rip = 0;
		machine_reset(machine);
		while (atomic_load(&resets) < i)
			usleep(100);
		until_it_runs(2);
		assert_int_equal(cpus[0].s.rip, 0x100000);
		for (unsigned c = 0; c < CPUS; c++)
			assert_int_equal(atomic_load(&cpus[c].boots), i + 1);
	}
	stop();
	assert_int_equal(cpus[1].s.activity, ACTIVITY_WAIT_SIPI);
	assert_int_equal(starts, 1);
	assert_int_equal(ends, 1);
}

static void reset_while_paused(void **state)
{
	(void)state;
	resets = 0;
	make(false);
	machine_add_hooks(machine, &event_hooks);
	start();
	machine_pause(machine);
	machine_reset(machine);
	machine_reset(machine); /* one is enough */
	while (atomic_load(&resets) < 1)
		usleep(100);
	assert_true(stands_still(0));
	machine_resume(machine);
	until_it_runs(0);
	stop();
}

static struct exit reset_port(uint8_t value)
{
	return (struct exit){.cause = EXIT_PIO_OUT,
			     .pio = {.port = 0xcf9, .size = 1, .data = value}};
}

static void guest_resets(void **state)
{
	(void)state;
	resets = 0;
	make(false);
	machine_add_hooks(machine, &event_hooks);
	script(1, reset_port(2));
	script(1, reset_port(6));
	start();
	while (atomic_load(&resets) < 1)
		usleep(100);
	until_it_runs(1);
	stop();
}

static void guest_reset_can_be_the_end(void **state)
{
	(void)state;
	make(true);
	script(1, reset_port(2));
	script(1, reset_port(6));
	start();
	join();
	assert_int_equal(result.end, MACHINE_REBOOTED);
}

static void crash(void **state)
{
	(void)state;
	make(false);
	script(2, (struct exit){.cause = EXIT_SHUTDOWN});
	start();
	join();
	assert_int_equal(result.end, MACHINE_CRASHED);
	assert_non_null(strstr(result.why.text, "vCPU 2"));
}

static void engine_error(void **state)
{
	(void)state;
	make(false);
	script(0, (struct exit){.cause = EXIT_ERROR, .error = {-EIO, "the cat ate it"}});
	start();
	join();
	assert_int_equal(result.end, MACHINE_FAILED);
	assert_non_null(strstr(result.why.text, "the cat ate it"));
	machine_stop(machine, MACHINE_QUIT, "too late");
	assert_int_equal(result.end, MACHINE_FAILED);
}

static void answers(void **state)
{
	(void)state;
	make(false);
	/* Nothing is at these addresses, and the MSR is nobody's. */
	script(0, (struct exit){.cause = EXIT_PIO_IN, .pio = {.port = 0x9999, .size = 2}});
	script(0, (struct exit){.cause = EXIT_MMIO_READ, .mmio = {.gpa = 0xd0000000, .size = 4}});
	script(0, (struct exit){.cause = EXIT_MMIO_READ, .mmio = {.gpa = 0xd0000000, .size = 8}});
	script(0, (struct exit){.cause = EXIT_RDMSR, .msr = {.index = 0x12345}});
	script(0, (struct exit){.cause = EXIT_WRMSR, .msr = {.index = 0x12345}});
	script(0, (struct exit){.cause = EXIT_RDMSR, .msr = {.index = 0x1b}});
	script(0, (struct exit){.cause = EXIT_HYPERCALL});
	start();
	while (atomic_load(&cpus[0].rounds) < 10)
		usleep(100);
	stop();
	assert_int_equal(cpus[0].at, 7);
	const struct exit *a = cpus[0].answer;
	assert_int_equal(a[0].pio.data, 0xffff);
	assert_int_equal(a[1].mmio.data, 0xffffffff);
	assert_true(a[2].mmio.data == UINT64_MAX);
	assert_true(a[3].msr.fault);
	assert_true(a[4].msr.fault);
	assert_false(a[5].msr.fault);
	assert_int_equal(a[5].msr.value & 0x900, 0x900); /* APIC on, boot processor */
	assert_true(cpus[0].s.gpr[RAX] == (uint64_t)-1000);
	assert_int_equal(cpus[0].vcpu.stats.count[EXIT_MMIO_READ], 2);
	assert_true(cpus[0].vcpu.stats.ticks[EXIT_MMIO_READ] > 0);
	assert_true(machine_engine_ticks(machine, 0) > 0);
}

static atomic_uint seen, debugged;

static void see_exit(void *opaque, unsigned cpu, const struct exit *exit, const char *device,
		     uint64_t ticks)
{
	(void)opaque, (void)ticks;
	if (cpu == 0 && exit->cause == EXIT_PIO_OUT && exit->pio.port == 0x3f8 && device)
		atomic_fetch_add(&seen, 1);
}

static void see_debug(void *opaque, unsigned cpu, const struct exit *exit)
{
	(void)opaque, (void)exit;
	assert_int_equal(cpu, 0);
	atomic_fetch_add(&debugged, 1);
	machine_pause_async(machine);
}

static void hooks_look_on(void **state)
{
	const struct machine_hooks hooks = {.exit = see_exit, .debug = see_debug};

	(void)state;
	seen = debugged = 0;
	make(false);
	for (int i = 0; i < MACHINE_HOOKS_MAX; i++)
		assert_int_equal(machine_add_hooks(machine, i ? &event_hooks : &hooks), 0);
	assert_int_equal(machine_add_hooks(machine, &hooks), -ENOSPC);
	script(0, (struct exit){.cause = EXIT_PIO_OUT, .pio = {.port = 0x3f8, .size = 1}});
	script(0, (struct exit){.cause = EXIT_DEBUG, .debug = {.gva = 0x1000}});
	start();
	while (!atomic_load(&debugged))
		usleep(100);
	machine_pause(machine); /* waits for the pause that the hook asked for */
	assert_true(stands_still(0) && stands_still(1));
	assert_int_equal(seen, 1);
	machine_resume(machine);
	machine_resume(machine);
	until_it_runs(0);
	stop();
}

static void wrong_configurations(void **state)
{
	struct machine_config config = {
		.loop = loop,
		.engine = &script_engine,
		.memory_bytes = MIB * 16,
		.cpus = 1,
		.boot = {.kernel_path = kernel_path},
	};
	struct error err;

	(void)state;
	config.cpus = 0;
	assert_int_equal(machine_create(&machine, &config, &err), -EINVAL);
	assert_null(machine);
	config.cpus = BOARD_CPUS_MAX + 1;
	assert_int_equal(machine_create(&machine, &config, &err), -EINVAL);
	config.cpus = 1;
	config.memory_bytes = 12345;
	assert_int_equal(machine_create(&machine, &config, &err), -EINVAL);
	config.memory_bytes = UINT64_C(1) << 60;
	assert_int_equal(machine_create(&machine, &config, &err), -EINVAL);
	config.memory_bytes = 16 * MIB;
	config.boot.kernel_path = "/nowhere/kernel";
	assert_int_equal(machine_create(&machine, &config, &err), -ENOENT);
	assert_non_null(strstr(err.text, "/nowhere/kernel"));
	assert_null(machine);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(paused_between_instructions),
		TEST(pauses_nest),
		TEST(starts_paused),
		TEST(one_cpu_is_held),
		TEST(a_halted_cpu_can_be_paused),
		TEST(reset_boots_again),
		TEST(reset_while_paused),
		TEST(guest_resets),
		TEST(guest_reset_can_be_the_end),
		TEST(crash),
		TEST(engine_error),
		TEST(answers),
		TEST(hooks_look_on),
		TEST(wrong_configurations),
	};

	return cmocka_run_group_tests(tests, write_kernel, remove_kernel);
}
