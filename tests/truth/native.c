/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "truth.h"

/*
 * The native side. A child process does nothing but take signals: each one is the end of a case
 * (the trap after the instruction, or its fault). The handler notes the registers in the signal
 * frame and puts those of the next case there, so that returning from the signal runs it. Batches
 * of cases lie in memory shared with the parent. The child can make no system call but those that
 * this takes (seccomp).
 */
struct shared {
	_Atomic uint32_t posted, done; /* batches */
	_Atomic uint32_t at;	       /* the case being run */
	struct batch batch;
};

struct native {
	struct shared *shared;
	pid_t child;
	uint32_t posted;
};

/* ---- in the child: no libc state (FS is the test's), no system calls but futex ---- */

static struct shared *sh;
static uint8_t *code_rw, *data_rw; /* writable views of the pages of the case */
static bool running;

static long futex(_Atomic uint32_t *word, int op, uint32_t value)
{
	long ret;
	register const struct timespec *timeout __asm__("r10") = NULL;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"((long)SYS_futex), "D"(word), "S"((long)op), "d"((long)value),
			   "r"(timeout)
			 : "rcx", "r11", "memory");
	return ret;
}

static const int greg_of[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
				REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
				REG_R12, REG_R13, REG_R14, REG_R15};

enum { XSTATE_BV_AT = 512, YMMH_AT = 576 };

static void note_result(const ucontext_t *uc, const struct tcase *t, struct result *r,
			const uint8_t *pristine)
{
	const greg_t *g = uc->uc_mcontext.gregs;
	const uint8_t *fp = (const uint8_t *)uc->uc_mcontext.fpregs;
	uint64_t bv;

	r->vector = (uint32_t)g[REG_TRAPNO];
	r->error = (uint32_t)g[REG_ERR];
	r->cr2 = (uint64_t)g[REG_CR2];
	for (unsigned n = 0; n < 16; n++)
		r->gpr[n] = (uint64_t)g[greg_of[n]];
	r->rip = (uint64_t)g[REG_RIP];
	r->rflags = (uint64_t)g[REG_EFL];
	memcpy(r->fx, fp, FX_BYTES);
	memcpy(&bv, fp + XSTATE_BV_AT, 8);
	if (bv & 4)
		memcpy(r->ymmh, fp + YMMH_AT, YMMH_BYTES);
	else
		memset(r->ymmh, 0, YMMH_BYTES);
	result_take_memory(r, t, data_rw, pristine);
}

static unsigned code_bytes(const struct tcase *t)
{
	return t->code_offset + t->length <= CODE_BYTES ? t->length
							: (unsigned)CODE_BYTES - t->code_offset;
}

static void set_up(ucontext_t *uc, const struct tcase *t)
{
	greg_t *g = uc->uc_mcontext.gregs;
	uint8_t *fp = (uint8_t *)uc->uc_mcontext.fpregs;
	uint64_t bv;

	memcpy(code_rw + t->code_offset, t->code, code_bytes(t));
	case_apply_patches(t, data_rw);
	for (unsigned n = 0; n < 16; n++)
		g[greg_of[n]] = (greg_t)t->gpr[n];
	g[REG_RIP] = CODE_BASE + t->code_offset;
	g[REG_EFL] = (greg_t)t->rflags;
	g[REG_CSGSFS] = (greg_t)((uint64_t)SEL_DATA << 48 | (t->mode32 ? SEL_CODE32 : SEL_CODE64));
	uint32_t mask;
	memcpy(&mask, fp + 28, 4);
	memcpy(fp, t->fx, FX_BYTES);
	memcpy(fp + 28, &mask, 4);
	memcpy(fp + YMMH_AT, t->ymmh, YMMH_BYTES);
	memcpy(&bv, fp + XSTATE_BV_AT, 8);
	bv |= 7;
	memcpy(fp + XSTATE_BV_AT, &bv, 8);
}

static void wait_for_batch(uint32_t done)
{
	for (unsigned k = 0; k < 200; k++) {
		if (atomic_load(&sh->posted) != done)
			return;
		__builtin_ia32_pause();
	}
	while (atomic_load(&sh->posted) == done)
		futex(&sh->posted, FUTEX_WAIT, done);
}

__attribute__((used)) static void on_signal(int sig, siginfo_t *info, void *opaque)
{
	ucontext_t *uc = opaque;
	struct batch *b = &sh->batch;
	uint32_t at = atomic_load(&sh->at);

	(void)sig;
	(void)info;
	bool batch_ends = !running;
	if (running) {
		const struct tcase *t = &b->in[at];
		note_result(uc, t, &b->out[at], b->pristine);
		memset(code_rw + t->code_offset, 0xcc, code_bytes(t));
		if (++at == b->count) {
			batch_ends = true;
			atomic_fetch_add(&sh->done, 1);
			futex(&sh->done, FUTEX_WAKE, 1);
		}
	}
	if (batch_ends) {
		running = true;
		wait_for_batch(atomic_load(&sh->done));
		memcpy(data_rw, b->pristine, DATA_BYTES);
		at = 0;
	}
	atomic_store(&sh->at, at);
	set_up(uc, &b->in[at]);
}

/*
 * AC may be set, with which the compiler's code cannot live; and NT and ID, which returning from the
 * signal would not change, would stay for the next case.
 */
void signal_entry(int sig, siginfo_t *info, void *opaque);
__asm__(".text\n"
	"signal_entry:\n\t"
	"pushfq\n\t"
	"andq $~0x244000, (%rsp)\n\t"
	"popfq\n\t"
	"jmp on_signal");

static int map_pages(void)
{
	int code = memfd_create("code", MFD_CLOEXEC), data = memfd_create("data", MFD_CLOEXEC);

	if (code < 0 || data < 0 || ftruncate(code, CODE_BYTES) || ftruncate(data, DATA_BYTES))
		return -errno;
	code_rw = mmap(NULL, CODE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, code, 0);
	data_rw = mmap(NULL, DATA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, data, 0);
	void *c = mmap((void *)CODE_BASE, CODE_BYTES, PROT_READ | PROT_EXEC,
		       MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_POPULATE, code, 0);
	void *d = mmap((void *)DATA_BASE, DATA_BYTES, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_POPULATE, data, 0);
	if (code_rw == MAP_FAILED || data_rw == MAP_FAILED || c != (void *)CODE_BASE ||
	    d != (void *)DATA_BASE ||
	    mprotect((char *)d + DATA_RW_BYTES, DATA_BYTES - DATA_RW_BYTES, PROT_READ))
		return -errno;
	memset(code_rw, 0xcc, CODE_BYTES);
	return 0;
}

static int take_signals(void (*handler)(int, siginfo_t *, void *))
{
	static const int sigs[] = {SIGTRAP, SIGSEGV, SIGBUS, SIGILL, SIGFPE};
	struct sigaction sa = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};
	enum { STACK_BYTES = 1 << 16 };
	stack_t ss = {.ss_size = STACK_BYTES,
		      .ss_sp = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0)};

	if (ss.ss_sp == MAP_FAILED || sigaltstack(&ss, NULL))
		return -errno;
	sigfillset(&sa.sa_mask);
	for (unsigned k = 0; k < sizeof(sigs) / sizeof(sigs[0]); k++)
		if (sigaction(sigs[k], &sa, NULL))
			return -errno;
	return 0;
}

static int lock_up(void)
{
#define ALLOW(nr)                                                                                  \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		ALLOW(SYS_rt_sigreturn),
		ALLOW(SYS_arch_prctl), /* for FS; nothing to get out by */
		ALLOW(SYS_futex),
		ALLOW(SYS_exit_group),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	};
	struct sock_fprog prog = {sizeof(filter) / sizeof(filter[0]), filter};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog))
		return -errno;
	return 0;
}

/* FS last: from then on libc's state is out of reach. */
_Noreturn static void child_main(struct shared *s)
{
	long nr = SYS_arch_prctl;

	sh = s;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (map_pages() || take_signals(signal_entry) ||
	    syscall(SYS_arch_prctl, 0x1001 /* ARCH_SET_GS */, GS_BASE))
		_exit(1);
	if (lock_up())
		_exit(2);
	__asm__ volatile("mov %1, %%ds\n\tmov %1, %%es\n\tsyscall\n\tint3"
			 : "+a"(nr)
			 : "r"(SEL_DATA), "D"(0x1002L /* ARCH_SET_FS */), "S"((long)FS_BASE)
			 : "rcx", "r11", "memory");
	__builtin_unreachable();
}

/* ---- what the host does ---- */

/* A child stops at one INT3, and may go on to the next with something changed. */
static void (*probe_changes)(greg_t *r);

static void on_probe(int sig, siginfo_t *info, void *opaque)
{
	static unsigned count;
	ucontext_t *uc = opaque;

	(void)info;
	if (count++)
		_exit(sig != SIGTRAP);
	probe_changes(uc->uc_mcontext.gregs);
}

static bool goes_on(void (*changes)(greg_t *r))
{
	const pid_t child = fork();
	int status = 0;

	if (!child) {
		probe_changes = changes;
		if (!map_pages() && !take_signals(on_probe))
			__asm__ volatile("int3\n\tint3");
		_exit(2);
	}
	return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) &&
	       !WEXITSTATUS(status);
}

static void change_rsp(greg_t *r)
{
	r[REG_RSP] = (greg_t)1 << 62;
}

/* To one below 4 GiB. */
static void change_mode(greg_t *r)
{
	r[REG_RIP] = CODE_BASE;
	r[REG_CSGSFS] = (greg_t)((uint64_t)SEL_DATA << 48 | SEL_CODE32);
}

bool native_takes_any_rsp(void)
{
	return goes_on(change_rsp);
}

bool native_has_32_bit(void)
{
	return goes_on(change_mode);
}

/* ---- in the parent ---- */

static int start_child(struct native *n, struct error *err)
{
	struct shared *s = n->shared;

	atomic_store(&s->at, 0);
	atomic_store(&s->done, n->posted);
	atomic_store(&s->posted, n->posted);
	n->child = fork();
	if (n->child < 0)
		return error_set(err, -errno, "cannot fork: %s", strerror(errno));
	if (!n->child)
		child_main(s);
	return 0;
}

int native_start(struct native **out, struct error *err)
{
	struct native *n = calloc(1, sizeof(*n));

	if (!n)
		return error_set(err, -ENOMEM, "no memory");
	n->shared = mmap(NULL, sizeof(*n->shared), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (n->shared == MAP_FAILED) {
		free(n);
		return error_set(err, -ENOMEM, "no shared memory");
	}
	int ret = start_child(n, err);
	if (ret) {
		munmap(n->shared, sizeof(*n->shared));
		free(n);
		return ret;
	}
	*out = n;
	return 0;
}

void native_stop(struct native *n)
{
	if (!n)
		return;
	kill(n->child, SIGKILL);
	waitpid(n->child, NULL, 0);
	munmap(n->shared, sizeof(*n->shared));
	free(n);
}

struct batch *native_batch(struct native *n)
{
	return &n->shared->batch;
}

void native_post(struct native *n)
{
	atomic_store(&n->shared->posted, ++n->posted);
	syscall(SYS_futex, &n->shared->posted, FUTEX_WAKE, 1, NULL, NULL, 0);
}

int native_wait(struct native *n, unsigned *at, struct error *err)
{
	const struct timespec tick = {.tv_nsec = 20000000};
	unsigned still = 0;
	uint32_t done, last = UINT32_MAX;

	while ((done = atomic_load(&n->shared->done)) != n->posted) {
		syscall(SYS_futex, &n->shared->done, FUTEX_WAIT, done, &tick, NULL, 0);
		uint32_t now = atomic_load(&n->shared->at);
		still = now == last ? still + 1 : 0;
		last = now;
		bool dead = waitpid(n->child, NULL, WNOHANG) == n->child;
		if (!dead && still < 250)
			continue;
		if (!dead) { /* it hangs */
			kill(n->child, SIGKILL);
			waitpid(n->child, NULL, 0);
		}
		if (atomic_load(&n->shared->done) == n->posted)
			break;
		*at = now;
		int ret = start_child(n, err);
		return ret ? ret : -ECHILD;
	}
	return 0;
}
