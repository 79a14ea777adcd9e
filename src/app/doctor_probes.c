/* SPDX-License-Identifier: Apache-2.0 */
/* The probes of `hanok doctor`. What could change the host is tried in a child, in namespaces. */
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/io_uring.h>
#include <linux/kvm.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "app/doctor.h"
#include "base/clock.h"
#include "base/layout.h"
#include "cpu/engine.h"

/* The first line of a small file under /proc or /sys; false when it cannot be read. */
static bool read_line(const char *path, char *line, size_t len)
{
	FILE *f = fopen(path, "re");
	bool ok = f && fgets(line, (int)len, f);

	if (f)
		fclose(f);
	if (ok)
		line[strcspn(line, "\n")] = 0;
	return ok;
}

static bool file_says(const char *path, const char *text)
{
	char line[64];

	return read_line(path, line, sizeof(line)) && !strcmp(line, text);
}

/* ---- engines and the CPU ---- */

void probe_engines(struct finding *f)
{
	struct error reason, err;
	const struct engine_ops *best = engine_find("auto", &reason, &err);

	if (best)
		finding_set(f, FINDING_OK, "%.200s", reason.text);
	else
		finding_set(f, FINDING_FATAL, "%.200s", err.text);
}

/* FSGSBASE counts only when the kernel lets programs use it (AT_HWCAP2 bit 1). */
static bool has_fsgsbase(void)
{
	return getauxval(AT_HWCAP2) & 2;
}

void probe_cpu(struct finding *f)
{
	__builtin_cpu_init();
	const struct {
		const char *name;
		bool there;
	} features[] = {
		{"sse4.2", __builtin_cpu_supports("sse4.2")},
		{"popcnt", __builtin_cpu_supports("popcnt")},
		{"aes", __builtin_cpu_supports("aes")},
		{"avx", __builtin_cpu_supports("avx")},
		{"avx2", __builtin_cpu_supports("avx2")},
		{"bmi2", __builtin_cpu_supports("bmi2")},
		{"fsgsbase", has_fsgsbase()},
	};
	char there[128] = "", missing[128] = "";

	for (unsigned i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
		char *list = features[i].there ? there : missing;
		if (*list)
			strcat(list, ", ");
		strcat(list, features[i].name);
	}
	if (!*missing)
		finding_set(f, FINDING_OK, "%s", there);
	else
		finding_set(f, FINDING_LIMITED,
			    "%s; not %s: guests do without, programs made for newer CPUs will not "
			    "run in them",
			    *there ? there : "an old CPU", missing);
}

void probe_tsc(struct finding *f)
{
	static const char source[] =
		"/sys/devices/system/clocksource/clocksource0/current_clocksource";
	unsigned a, b, c, d = 0;
	char name[32];

	__get_cpuid(0x80000007, &a, &b, &c, &d);
	if (d & 1 << 8) {
		finding_set(f, FINDING_OK, "%.0f MHz, invariant: guests keep time by it",
			    (double)clock_tsc_hz() / 1e6);
	} else if (file_says(source, "tsc") || file_says(source, "kvm-clock")) {
		finding_set(f, FINDING_OK,
			    "%.0f MHz, trusted by this kernel: guests keep time by it",
			    (double)clock_tsc_hz() / 1e6);
	} else {
		if (!read_line(source, name, sizeof(name)))
			strcpy(name, "not known");
		finding_set(
			f, FINDING_LIMITED,
			"not invariant (the kernel's own clock source is %s): guests' clocks may "
			"drift",
			name);
	}
}

/* Of this process, which was laid out as one that runs a machine is (main.c). */
void probe_window(struct finding *f)
{
	struct layout_taken stack;
	struct error why;

	if (layout_is_own(&stack, &why)) {
		finding_set(
			f, FINDING_OK,
			"programs of guests with one vCPU find their memory at its own addresses");
	} else {
		finding_set(
			f, FINDING_LIMITED,
			"not here, so engine bt looks up each address that a guest uses: %.120s",
			why.text);
		finding_mend(f, "let processes have a large stack (`ulimit -Hs unlimited`) and lay "
				"out their own memory (`setarch -R` and sanitizers do not)");
	}
}

/* ---- KVM ---- */

static bool cpu_has_vmx_or_svm(void)
{
	unsigned a, b, c, d;

	if (__get_cpuid(1, &a, &b, &c, &d) && c & 1 << 5)
		return true;
	return __get_cpuid(0x80000001, &a, &b, &c, &d) && c & 1 << 2;
}

static bool build_has_engine(const char *name)
{
	for (unsigned i = 0; engines[i]; i++)
		if (!strcmp(engines[i]->name, name))
			return true;
	return false;
}

static void kvm_not_open(struct finding *f, int error)
{
	switch (error) {
	case ENOENT:
	case ENXIO:
	case ENODEV:
		finding_set(f, FINDING_MISSING,
			    "no /dev/kvm: guests run on hanok's own engines, more slowly");
		if (cpu_has_vmx_or_svm())
			finding_mend(f,
				     "modprobe kvm_intel (or kvm_amd), and see that the firmware "
				     "has virtualization switched on");
		else
			finding_mend(f, "switch virtualization on in the firmware; in a virtual "
					"machine, have its host offer nested virtualization");
		break;
	case EACCES:
	case EPERM:
		finding_set(f, FINDING_MISSING, "/dev/kvm is there, but not for you%s",
			    cpu_has_vmx_or_svm() ? ""
						 : "; it would not help: this CPU has neither VMX "
						   "nor SVM, which stock guests need there");
		if (cpu_has_vmx_or_svm())
			finding_mend(f, "sudo usermod -aG kvm $USER, then log in anew");
		break;
	default:
		finding_set(f, FINDING_MISSING, "/dev/kvm: %s", strerror(error));
		break;
	}
}

void probe_kvm(struct finding *f)
{
	const char *unused = build_has_engine("kvm") ? ""
						     : "; this build has no engine that uses it";
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (fd < 0) {
		kvm_not_open(f, errno);
		return;
	}
	int version = ioctl(fd, KVM_GET_API_VERSION, 0);
	int vm = version == KVM_API_VERSION ? ioctl(fd, KVM_CREATE_VM, 0) : -1;
	int error = errno;
	if (version != KVM_API_VERSION)
		finding_set(f, FINDING_MISSING, "/dev/kvm speaks version %d, not %d", version,
			    KVM_API_VERSION);
	else if (vm < 0)
		finding_set(f, FINDING_MISSING, "/dev/kvm makes no machine: %s", strerror(error));
	else if (!cpu_has_vmx_or_svm())
		finding_set(f, FINDING_LIMITED,
			    "it opens, but this CPU has neither VMX nor SVM: a paravirtual KVM "
			    "(kvm_pvm), which runs only guests made for it; stock guests run on "
			    "hanok's own engines");
	else
		finding_set(f, FINDING_OK, "usable, with hardware virtualization%s", unused);
	if (vm >= 0)
		close(vm);
	close(fd);
}

/* ---- memory ---- */

void probe_memory(struct finding *f)
{
	FILE *file = fopen("/proc/meminfo", "re");
	char line[128];
	uint64_t kib = 0;

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "MemAvailable: %" SCNu64, &kib) == 1)
			break;
	if (file)
		fclose(file);
	if (kib >= 512 * 1024)
		finding_set(f, FINDING_OK,
			    "%" PRIu64 " MiB available; guests take only what they "
			    "touch",
			    kib / 1024);
	else
		finding_set(f, FINDING_LIMITED,
			    "%" PRIu64 " MiB available: a guest of the usual "
			    "512 MiB may not fit",
			    kib / 1024);
}

/* The kernel's setting stands in brackets: "always [madvise] never". */
void probe_huge_pages(struct finding *f)
{
	static const char path[] = "/sys/kernel/mm/transparent_hugepage/enabled";
	char line[64] = "";
	FILE *file = fopen(path, "re");

	if (file) {
		if (!fgets(line, sizeof(line), file))
			line[0] = '\0';
		fclose(file);
	}
	if (strstr(line, "[always]") || strstr(line, "[madvise]")) {
		finding_set(f, FINDING_OK, "guests' memory gets them where it is used densely");
		return;
	}
	finding_set(f, FINDING_LIMITED, "%s: guests that use much memory run up to a third slower",
		    file ? "turned off" : "this kernel has none");
	if (file)
		finding_mend(f, "echo madvise | sudo tee %s", path);
}

void probe_ksm(struct finding *f)
{
	static const char run[] = "/sys/kernel/mm/ksm/run";
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool there = page != MAP_FAILED && madvise(page, 4096, MADV_MERGEABLE) == 0;

	if (page != MAP_FAILED)
		munmap(page, 4096);
	if (!there) {
		finding_set(f, FINDING_MISSING,
			    "this kernel has none: --memory-share does nothing");
	} else if (file_says(run, "1")) {
		finding_set(f, FINDING_OK,
			    "equal pages are shared between guests with --memory-share");
	} else {
		finding_set(f, FINDING_LIMITED,
			    "it does not run: --memory-share does nothing (off is the safe choice: "
			    "sharing lets a guest find out what another has)");
		finding_mend(f, "echo 1 | sudo tee %s", run);
	}
}

void probe_userfaultfd(struct finding *f)
{
	struct uffdio_api api = {.api = UFFD_API};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	int error = errno;

	if (fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0) {
		finding_set(f, FINDING_OK, "for paging guests' memory on demand%s",
			    api.features & UFFD_FEATURE_PAGEFAULT_FLAG_WP
				    ? ", with write protection"
				    : "");
	} else {
		finding_set(f, FINDING_MISSING, "%s: guests' memory cannot be paged on demand",
			    strerror(fd >= 0 ? errno : error));
		if (error == EPERM)
			finding_mend(f, "sudo sysctl vm.unprivileged_userfaultfd=1");
	}
	if (fd >= 0)
		close(fd);
}

void probe_io_uring(struct finding *f)
{
	struct io_uring_params params = {0};
	int fd = (int)syscall(SYS_io_uring_setup, 4, &params);

	if (fd >= 0) {
		close(fd);
		finding_set(f, FINDING_OK, "for disks");
		return;
	}
	finding_set(f, FINDING_MISSING, "%s: disks do without it, more slowly", strerror(errno));
	if (errno == EPERM)
		finding_mend(f, "sudo sysctl kernel.io_uring_disabled=0");
}

/* ---- network ---- */

/* Enters a network namespace of its own, as root or as root of a new user namespace. */
static int enter_netns(void)
{
	if (unshare(CLONE_NEWNET) == 0)
		return 0;
	return unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0 ? 0 : errno;
}

static int make_tap(void)
{
	struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return errno;
	strcpy(ifr.ifr_name, "hanok%d");
	int r = ioctl(fd, TUNSETIFF, &ifr) < 0 ? errno : 0;
	close(fd);
	return r;
}

/* Runs both in a child. Returns the errno of the first that failed; *entered: it was not the
 * namespace. */
static int try_in_child(int (*then)(void), bool *entered)
{
	enum { NOT_ENTERED = 0x80 };
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		int error = enter_netns();
		if (error)
			_exit(NOT_ENTERED | (error & 0x7f));
		error = then ? then() : 0;
		_exit(error & 0x7f);
	}
	*entered = false;
	if (pid < 0)
		return errno;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return errno;
	if (!WIFEXITED(status))
		return EFAULT;
	*entered = !(WEXITSTATUS(status) & NOT_ENTERED);
	return WEXITSTATUS(status) & 0x7f;
}

static void netns_mend(struct finding *f)
{
	if (file_says("/proc/sys/kernel/unprivileged_userns_clone", "0"))
		finding_mend(f, "sudo sysctl kernel.unprivileged_userns_clone=1");
	else if (file_says("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"))
		finding_mend(f, "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0");
	else if (file_says("/proc/sys/user/max_user_namespaces", "0"))
		finding_mend(f, "sudo sysctl user.max_user_namespaces=15000");
	else
		finding_mend(f, "run hanok outside of the container or sandbox that forbids it");
}

void probe_netns(struct finding *f)
{
	bool entered;
	int error = try_in_child(NULL, &entered);

	if (!error) {
		finding_set(f, FINDING_OK,
			    "network namespaces can be made, for networks between "
			    "guests and host without privilege");
		return;
	}
	finding_set(f, FINDING_MISSING, "%s: no network namespaces for you", strerror(error));
	netns_mend(f);
}

void probe_tap(struct finding *f)
{
	bool entered;
	int error = try_in_child(make_tap, &entered);

	if (!error) {
		finding_set(f, FINDING_OK, "TAP interfaces with offloads, in a network namespace");
		return;
	}
	finding_set(f, FINDING_MISSING, "%s%s: guests cannot be bridged",
		    entered ? "/dev/net/tun: " : "no network namespace to make one in: ",
		    strerror(error));
	if (entered && (error == ENOENT || error == ENODEV))
		finding_mend(f, "sudo modprobe tun");
	else if (entered && error == EACCES)
		finding_mend(f, "sudo chmod 666 /dev/net/tun");
	else if (!entered)
		netns_mend(f);
}
