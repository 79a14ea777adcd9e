/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HANOK_APP_DOCTOR_H
#define HANOK_APP_DOCTOR_H

/* What one probe of the host found. */
enum finding_status {
	FINDING_OK,
	FINDING_LIMITED, /* there, but not as good as it could be */
	FINDING_MISSING, /* something cannot be done; the rest goes on */
	FINDING_FATAL,	 /* no guest can run */
};

struct finding {
	const char *name;
	enum finding_status status;
	char detail[256]; /* what is there, and what it means */
	char mend[256];	  /* what to do about it; empty when nothing is to be done */
};

void finding_set(struct finding *f, enum finding_status status, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void finding_mend(struct finding *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The probes, each by really trying it; f comes in with its name and nothing else. */
void probe_cpu(struct finding *f);
void probe_tsc(struct finding *f);
void probe_engines(struct finding *f);
void probe_kvm(struct finding *f);
void probe_window(struct finding *f);
void probe_memory(struct finding *f);
void probe_huge_pages(struct finding *f);
void probe_ksm(struct finding *f);
void probe_userfaultfd(struct finding *f);
void probe_io_uring(struct finding *f);
void probe_netns(struct finding *f);
void probe_tap(struct finding *f);

#endif
