/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/vm_config.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { KEY_BYTES = 64, MEMORY_MIB_DEFAULT = 512 };

/* The buses that drives are on in a .vmx, with the most that VMware's own have. */
static const struct bus {
	const char *name;
	unsigned controllers, units;
	bool has_present; /* the controller has a .present key of its own */
	const char *kind; /* without .virtualDev: the storage kind's vmx_name */
} buses[] = {
	{"scsi", 4, 64, true, "lsilogic"},
	{"sata", 4, 30, true, "ahci"},
	{"nvme", 4, 64, true, "nvme"},
	{"ide", 2, 2, false, "ide"},
	{"hanok.virtio", STORAGE_CONTROLLERS_MAX, 1, false, "virtio-blk"},
};
enum { BUSES = sizeof(buses) / sizeof(buses[0]) };

/* ---- strings ---- */

/* Takes s over; NULL when it is NULL or there is no memory. */
static const char *keep(struct vm_config *c, char *s)
{
	char **strings = s ? realloc(c->strings, (c->string_count + 1) * sizeof(*strings)) : NULL;

	if (!strings) {
		free(s);
		return NULL;
	}
	c->strings = strings;
	c->strings[c->string_count++] = s;
	return s;
}

__attribute__((format(printf, 2, 3))) static const char *keep_format(struct vm_config *c,
								     const char *fmt, ...)
{
	va_list ap;
	char *text;

	va_start(ap, fmt);
	int n = vasprintf(&text, fmt, ap);
	va_end(ap);
	return n < 0 ? NULL : keep(c, text);
}

void vm_config_free(struct vm_config *c)
{
	for (unsigned i = 0; i < c->string_count; i++)
		free(c->strings[i]);
	free(c->strings);
	*c = (struct vm_config){0};
}

static int no_memory(const struct vmx *v, struct error *err)
{
	return error_set(err, -ENOMEM, "%s: out of memory", vmx_name(v));
}

/* A key's value, copied; *out is NULL when it is missing or empty. */
static int get_text(struct vm_config *c, const struct vmx *v, const char *key, const char **out,
		    struct error *err)
{
	const char *value = vmx_get(v, key);

	*out = value && *value ? keep(c, strdup(value)) : NULL;
	return value && *value && !*out ? no_memory(v, err) : 0;
}

/* The same for a file name, made absolute. */
static int get_path(struct vm_config *c, const struct vmx *v, const char *key, const char *folder,
		    const char **out, struct error *err)
{
	const char *value = vmx_get(v, key);

	*out = NULL;
	if (!value || !*value)
		return 0;
	*out = *value == '/' ? keep(c, strdup(value)) : keep_format(c, "%s/%s", folder, value);
	return *out ? 0 : no_memory(v, err);
}

/* ---- drives ---- */

/* "scsi0:1." + what */
static void drive_key(char *key, const struct bus *b, unsigned n, unsigned m, const char *what)
{
	snprintf(key, KEY_BYTES, "%s%u:%u%s%s", b->name, n, m, *what ? "." : "", what);
}

static int drive_present(const struct vmx *v, const struct bus *b, unsigned n, unsigned m,
			 bool *present, struct error *err)
{
	char key[KEY_BYTES];

	drive_key(key, b, n, m, "present");
	return vmx_get_bool(v, key, false, present, err);
}

static const char *drive_value(const struct vmx *v, const struct bus *b, unsigned n, unsigned m,
			       const char *what)
{
	char key[KEY_BYTES];

	drive_key(key, b, n, m, what);
	return vmx_get(v, key);
}

int vm_config_each_drive(const struct vmx *v,
			 int (*fn)(void *opaque, const char *key, const char *file_name),
			 void *opaque)
{
	char key[KEY_BYTES];
	bool present;
	int r = 0;

	for (const struct bus *b = buses; b < buses + BUSES; b++)
		for (unsigned n = 0; n < b->controllers; n++)
			for (unsigned m = 0; r == 0 && m < b->units; m++) {
				if (drive_present(v, b, n, m, &present, NULL) < 0 || !present)
					continue;
				const char *name = drive_value(v, b, n, m, "fileName");
				drive_key(key, b, n, m, "");
				r = fn(opaque, key, name ? name : "");
			}
	return r;
}

static const struct storage_kind *kind_named(const char *vmx_name)
{
	for (unsigned i = 0; storage_kinds[i]; i++)
		if (storage_kinds[i]->vmx_name && !strcasecmp(storage_kinds[i]->vmx_name, vmx_name))
			return storage_kinds[i];
	return NULL;
}

/* The kind of controller n of a bus. NULL with *err: there is no such thing here. */
static const struct storage_kind *find_kind(const struct vmx *v, const struct bus *b, unsigned n,
					    struct error *err)
{
	char key[KEY_BYTES];

	snprintf(key, sizeof(key), "%s%u.virtualDev", b->name, n);
	const char *given = vmx_get(v, key), *name = given && *given ? given : b->kind;
	const struct storage_kind *k = kind_named(name);
	if (k)
		return k;
	if (!strcasecmp(name, "buslogic"))
		error_set(err, -EINVAL,
			  "%s: %s = \"buslogic\": there is no BusLogic adapter here; set it to "
			  "\"lsilogic\", for which most systems have a driver, too",
			  vmx_name(v), key);
	else if (given && *given)
		error_set(err, -EINVAL,
			  "%s: %s = \"%.40s\": there is no such controller here; set it to pvscsi, "
			  "lsilogic or lsisas1068",
			  vmx_name(v), key, given);
	else
		error_set(err, -EINVAL, "%s: %s%u: there is no controller of this kind here yet",
			  vmx_name(v), b->name, n);
	return NULL;
}

static bool is_cdrom(const char *type)
{
	static const char *const types[] = {"cdrom-image", "cdrom-raw", "atapi-cdrom"};

	for (unsigned i = 0; type && i < sizeof(types) / sizeof(types[0]); i++)
		if (!strcasecmp(type, types[i]))
			return true;
	return false;
}

/* The bus that a kind of controller is on; those that no other bus has are SCSI's. */
static const struct bus *bus_of(const struct storage_kind *kind)
{
	for (unsigned i = 1; i < BUSES; i++)
		if (!strcasecmp(buses[i].kind, kind->vmx_name))
			return &buses[i];
	return &buses[0];
}

int vm_config_add_disk(struct vmx *v, const struct storage_kind *kind, unsigned n,
		       const char *file_name, struct error *err)
{
	const struct bus *b = bus_of(kind);
	bool scsi = b == &buses[0];
	/* IDE and virtio fill one controller after the other; the rest have room on the first, SCSI
	 * but for unit 7, which is the controller itself. */
	unsigned each = b->has_present ? b->units : b->controllers > 2 ? 1 : b->units;
	unsigned at = n / each, unit = n % each + (scsi && n % each >= 7);
	char key[KEY_BYTES];
	int r = 0;

	if (at >= b->controllers || unit >= b->units || (b->has_present && unit >= kind->units))
		return error_set(err, -ENOSPC, "%s: no room for %u disks", kind->name, n + 1);
	snprintf(key, sizeof(key), "%s%u.present", b->name, at);
	if (b->has_present)
		r = vmx_set(v, key, "TRUE", err);
	snprintf(key, sizeof(key), "%s%u.virtualDev", b->name, at);
	if (r == 0 && scsi)
		r = vmx_set(v, key, kind->vmx_name, err);
	drive_key(key, b, at, unit, "fileName");
	if (r == 0)
		r = vmx_set(v, key, file_name, err);
	drive_key(key, b, at, unit, "present");
	return r == 0 ? vmx_set(v, key, "TRUE", err) : r;
}

/* Sets what the keys of one drive say; path NULL for a CD drive with nothing in it. */
static int read_drive(struct vm_config *c, const struct vmx *v, const struct bus *b, unsigned n,
		      unsigned m, const char *folder, struct storage_drive *d, struct error *err)
{
	const char *type = drive_value(v, b, n, m, "deviceType");
	const char *mode = drive_value(v, b, n, m, "mode");
	char key[KEY_BYTES];
	bool connected;

	*d = (struct storage_drive){.cdrom = is_cdrom(type)};
	drive_key(key, b, n, m, "startConnected");
	int r = vmx_get_bool(v, key, true, &connected, err);
	drive_key(key, b, n, m, "fileName");
	if (r == 0)
		r = get_path(c, v, key, folder, &d->path, err);
	if (r < 0)
		return r;
	/* A drive of the host's, or nothing in it. */
	if (d->cdrom && (!connected || strcasecmp(type, "cdrom-image")))
		d->path = NULL;
	if (!d->path && !d->cdrom)
		return error_set(err, -EINVAL, "%s: %s: missing; a disk needs its file's name",
				 vmx_name(v), key);
	drive_key(key, b, n, m, "mode");
	if (mode && !strcasecmp(mode, "independent-nonpersistent"))
		return error_set(
			err, -EINVAL,
			"%s: %s = \"%s\": not to be had here; take a snapshot and revert to "
			"it instead",
			vmx_name(v), key, mode);
	return 0;
}

/* The plan's controller for controller n of a bus, which is added if it is not there. *at < 0. */
static int add_controller(struct vm_config *c, const struct vmx *v, const struct bus *b, unsigned n,
			  int *at, struct error *err)
{
	const struct storage_kind *k = *at < 0 ? find_kind(v, b, n, err) : NULL;

	if (*at >= 0)
		return 0;
	if (!k)
		return -EINVAL;
	*at = storage_plan_add_controller(&c->storage, k, err);
	return *at < 0 ? *at : 0;
}

static int read_controller(struct vm_config *c, const struct vmx *v, const struct bus *b,
			   unsigned n, const char *folder, int *at, struct error *err)
{
	struct storage_drive d;
	char key[KEY_BYTES];
	bool present = true;
	int r = 0;

	snprintf(key, sizeof(key), "%s%u.present", b->name, n);
	if (b->has_present)
		r = vmx_get_bool(v, key, false, &present, err);
	if (r == 0 && b->has_present && present)
		r = add_controller(c, v, b, n, at, err);
	for (unsigned m = 0; r == 0 && m < b->units; m++) {
		bool there;
		r = drive_present(v, b, n, m, &there, err);
		if (r < 0 || !there)
			continue;
		if (!present)
			return error_set(err, -EINVAL,
					 "%s: %s%u:%u is present, but %s%u is not; set %s = "
					 "\"TRUE\"",
					 vmx_name(v), b->name, n, m, b->name, n, key);
		r = read_drive(c, v, b, n, m, folder, &d, err);
		if (r == 0)
			r = add_controller(c, v, b, n, at, err);
		if (r < 0)
			continue;
		d.controller = (unsigned)*at;
		/* Both channels of IDE are one controller here. */
		d.target = b->has_present || b->units == 1 ? m : n * b->units + m;
		struct error why = {""};
		r = storage_plan_add(&c->storage, &d, &why);
		if (r < 0)
			error_set(err, r, "%s: %s%u:%u: %.300s", vmx_name(v), b->name, n, m,
				  why.text);
	}
	return r;
}

static int read_storage(struct vm_config *c, const struct vmx *v, const char *folder,
			struct error *err)
{
	int r = 0;

	for (const struct bus *b = buses; r == 0 && b < buses + BUSES; b++) {
		int at = -1;
		for (unsigned n = 0; r == 0 && n < b->controllers; n++) {
			if (strcmp(b->name, "ide"))
				at = -1;
			r = read_controller(c, v, b, n, folder, &at, err);
		}
	}
	return r;
}

/* ---- the rest ---- */

static int read_serial(struct vm_config *c, const struct vmx *v, unsigned n, const char *folder,
		       struct error *err)
{
	char key[KEY_BYTES];
	const char *path;
	bool present;

	snprintf(key, sizeof(key), "serial%u.present", n);
	int r = vmx_get_bool(v, key, false, &present, err);
	if (r < 0 || !present)
		return r;
	snprintf(key, sizeof(key), "serial%u.fileName", n);
	r = get_path(c, v, key, folder, &path, err);
	if (r < 0)
		return r;
	snprintf(key, sizeof(key), "serial%u.fileType", n);
	const char *type = vmx_get(v, key);
	bool file = type && !strcasecmp(type, "file"), pipe = type && !strcasecmp(type, "pipe");
	/* The host's own ports and VMware's printer are not here: nothing is plugged in then. */
	if (!file && !pipe)
		return 0;
	if (!path)
		return error_set(err, -EINVAL, "%s: serial%u.fileName: missing", vmx_name(v), n);
	c->serial[n] = keep_format(c, "%s:%s", file ? "file" : "socket", path);
	return c->serial[n] ? 0 : no_memory(v, err);
}

/* ---- network cards ---- */

static const char *nic_value(const struct vmx *v, unsigned n, const char *what)
{
	char key[KEY_BYTES];

	snprintf(key, sizeof(key), "ethernet%u.%s", n, what);
	const char *value = vmx_get(v, key);
	return value && *value ? value : NULL;
}

/* As VMware makes them up: the last three bytes of uuid.bios, and 10 more for each card. A machine
 * without one gets three bytes from its file's name. */
static int make_mac(const struct vmx *v, unsigned n, uint8_t mac[NIC_MAC_BYTES], struct error *err)
{
	const char *uuid = vmx_get(v, "uuid.bios");
	uint64_t low = UINT64_C(0xcbf29ce484222325), offset; /* FNV-1a */
	unsigned digits = 0;
	char key[KEY_BYTES];

	snprintf(key, sizeof(key), "ethernet%u.generatedAddressOffset", n);
	int r = vmx_get_number(v, key, 10 * n, 0, UINT16_MAX, &offset, err);
	for (const char *p = vmx_name(v); *p; p++)
		low = (low ^ (uint8_t)*p) * UINT64_C(0x100000001b3);
	for (const char *p = uuid ? uuid : ""; *p; p++)
		digits += strchr("0123456789abcdefABCDEF", *p) != NULL;
	if (digits == 32) {
		low = 0;
		for (const char *p = uuid; *p; p++) {
			unsigned c = (unsigned char)*p;
			if (strchr("0123456789abcdefABCDEF", *p))
				low = low << 4 | (c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
		}
	}
	low += offset;
	const uint8_t made[] = {0x00,	     0x0c, 0x29, (uint8_t)(low >> 16), (uint8_t)(low >> 8),
				(uint8_t)low};
	memcpy(mac, made, sizeof(made));
	return r;
}

static int read_mac(const struct vmx *v, unsigned n, uint8_t mac[NIC_MAC_BYTES], struct error *err)
{
	const char *type = nic_value(v, n, "addressType");
	const char *key = type && !strcasecmp(type, "static") ? "address" : "generatedAddress";
	const char *value = nic_value(v, n, key);
	struct error why = {""};

	if (!value && *key == 'a')
		return error_set(err, -EINVAL,
				 "%s: ethernet%u.address: missing; addressType is static",
				 vmx_name(v), n);
	if (!value)
		return make_mac(v, n, mac, err);
	int r = nic_parse_mac(value, mac, &why);
	return r == 0 ? 0
		      : error_set(err, r, "%s: ethernet%u.%s: %.200s", vmx_name(v), n, key,
				  why.text);
}

/* Host-only and bridged networks are those of `hanok net` with these names. */
static int read_cable(struct vm_config *c, const struct vmx *v, unsigned n, struct nic_card *card,
		      struct error *err)
{
	const char *type = nic_value(v, n, "connectionType"), *name = type ? type : "bridged";
	char key[KEY_BYTES];
	bool connected;

	snprintf(key, sizeof(key), "ethernet%u.startConnected", n);
	int r = vmx_get_bool(v, key, true, &connected, err);
	if (r < 0 || !connected)
		return r;
	if (!strcasecmp(name, "nat")) {
		card->cable = NIC_NAT;
		return 0;
	}
	if (!strcasecmp(name, "custom")) {
		snprintf(key, sizeof(key), "ethernet%u.networkName", n);
		r = get_text(c, v, key, &card->group, err);
		name = nic_value(v, n, "vnet");
		if (r == 0 && !name)
			return error_set(err, -EINVAL,
					 "%s: ethernet%u.vnet: missing; it names the network, "
					 "because connectionType is custom",
					 vmx_name(v), n);
		const char *slash = name ? strrchr(name, '/') : NULL;
		name = slash ? slash + 1 : name; /* "/dev/vmnet2" */
	} else if (strcasecmp(name, "hostonly") && strcasecmp(name, "bridged")) {
		return error_set(err, -EINVAL,
				 "%s: ethernet%u.connectionType = \"%.40s\": it is nat, hostonly, "
				 "bridged or custom",
				 vmx_name(v), n, name);
	}
	if (r < 0)
		return r;
	card->cable = NIC_NETWORK;
	card->network = keep(c, strdup(name));
	return card->network ? 0 : no_memory(v, err);
}

static int read_forwards(struct vm_config *c, const struct vmx *v, unsigned n,
			 struct nic_card *card, struct error *err)
{
	char key[KEY_BYTES];
	const char *text;

	snprintf(key, sizeof(key), "hanok.ethernet%u.forwards", n);
	int r = get_text(c, v, key, &text, err);
	char *rest = r == 0 && text ? c->strings[c->string_count - 1] : NULL;
	while (rest && card->forwards < NIC_FORWARDS_MAX)
		card->forward[card->forwards++] = strsep(&rest, ",");
	return rest ? error_set(err, -ENOSPC, "%s: %s: at most %d", vmx_name(v), key,
				NIC_FORWARDS_MAX)
		    : r;
}

static int read_nic(struct vm_config *c, const struct vmx *v, unsigned n, struct error *err)
{
	const char *kind = nic_value(v, n, "virtualDev");
	struct error why = {""};
	/* What VMware takes when nothing is said, but for guests of long ago. */
	struct nic_card card = {.kind = nic_find_vmx(kind ? kind : "e1000", &why)};

	if (!card.kind)
		return error_set(err, -EINVAL, "%s: ethernet%u.virtualDev: %.300s", vmx_name(v), n,
				 why.text);
	int r = read_mac(v, n, card.mac, err);
	if (r == 0)
		r = read_cable(c, v, n, &card, err);
	if (r == 0)
		r = read_forwards(c, v, n, &card, err);
	if (r < 0)
		return r;
	r = nic_plan_add(&c->nics, &card, &why);
	return r == 0 ? 0 : error_set(err, r, "%s: ethernet%u: %.300s", vmx_name(v), n, why.text);
}

static int read_nics(struct vm_config *c, const struct vmx *v, struct error *err)
{
	char key[KEY_BYTES];
	bool present;
	int r = 0;

	for (unsigned n = 0; r == 0 && n < NICS_MAX; n++) {
		snprintf(key, sizeof(key), "ethernet%u.present", n);
		r = vmx_get_bool(v, key, false, &present, err);
		if (r == 0 && present)
			r = read_nic(c, v, n, err);
	}
	return r;
}

static int set_nic(struct vmx *v, unsigned n, const char *what, const char *value,
		   struct error *err)
{
	char key[KEY_BYTES];

	snprintf(key, sizeof(key), "ethernet%u.%s", n, what);
	return vmx_set(v, key, value, err);
}

static int set_cable(struct vmx *v, unsigned n, const struct nic_card *card, struct error *err)
{
	int r;

	if (card->cable == NIC_UNPLUGGED)
		return set_nic(v, n, "startConnected", "FALSE", err);
	if (card->cable == NIC_NAT)
		return set_nic(v, n, "connectionType", "nat", err);
	r = set_nic(v, n, "connectionType", "custom", err);
	if (r == 0)
		r = set_nic(v, n, "vnet", card->network, err);
	if (r == 0 && card->group)
		r = set_nic(v, n, "networkName", card->group, err);
	return r;
}

static int set_forwards(struct vmx *v, unsigned n, const struct nic_card *card, struct error *err)
{
	char key[KEY_BYTES], text[NIC_FORWARDS_MAX * 128] = "";
	size_t len = 0;

	for (unsigned i = 0; i < card->forwards && len < sizeof(text); i++)
		len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%s", i ? "," : "",
					card->forward[i]);
	snprintf(key, sizeof(key), "hanok.ethernet%u.forwards", n);
	if (len >= sizeof(text))
		return error_set(err, -ENOSPC, "%s: they are too long", key);
	return card->forwards ? vmx_set(v, key, text, err) : 0;
}

int vm_config_add_nic(struct vmx *v, unsigned n, const struct nic_card *card, struct error *err)
{
	static const uint8_t zero[NIC_MAC_BYTES];
	const uint8_t *m = card->mac;
	bool given = memcmp(m, zero, NIC_MAC_BYTES) != 0;
	char mac[3 * NIC_MAC_BYTES];
	int r = set_nic(v, n, "present", "TRUE", err);

	snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4],
		 m[5]);
	if (r == 0)
		r = set_nic(v, n, "virtualDev", card->kind->vmx_name, err);
	if (r == 0)
		r = set_nic(v, n, "addressType", given ? "static" : "generated", err);
	if (r == 0 && given)
		r = set_nic(v, n, "address", mac, err);
	if (r == 0)
		r = set_cable(v, n, card, err);
	return r == 0 ? set_forwards(v, n, card, err) : r;
}

/* ---- texts ---- */

static int read_texts(struct vm_config *c, const struct vmx *v, const char *folder,
		      struct error *err)
{
	const struct {
		const char *key, **to;
	} texts[] = {
		{"guestOS", &c->guest_os},    {"uuid.bios", &c->uuid},
		{"hanok.append", &c->append}, {"displayName", &c->name},
		{"hanok.engine", &c->engine},
	};
	int r = 0;

	for (unsigned i = 0; r == 0 && i < sizeof(texts) / sizeof(texts[0]); i++)
		r = get_text(c, v, texts[i].key, texts[i].to, err);
	if (r == 0)
		r = get_path(c, v, "hanok.kernel", folder, &c->kernel, err);
	if (r == 0)
		r = get_path(c, v, "hanok.initrd", folder, &c->initrd, err);
	if (!c->engine)
		c->engine = "auto";
	if (r == 0 && !c->name) {
		const char *slash = strrchr(vmx_name(v), '/');
		const char *file = slash ? slash + 1 : vmx_name(v);
		size_t len = strlen(file);
		bool suffix = len > 4 && !strcasecmp(file + len - 4, ".vmx");
		c->name = keep(c, strndup(file, suffix ? len - 4 : len));
		r = c->name ? 0 : no_memory(v, err);
	}
	return r;
}

static int check_firmware(const struct vmx *v, struct error *err)
{
	const char *firmware = vmx_get(v, "firmware");

	if (!firmware || !*firmware || !strcasecmp(firmware, "bios") ||
	    !strcasecmp(firmware, "efi"))
		return 0;
	return error_set(err, -EINVAL, "%s: firmware = \"%.40s\": it is either bios or efi",
			 vmx_name(v), firmware);
}

/* VMware writes "unlimited" or -1 for none. */
static int read_memory_limit(struct vm_config *c, const struct vmx *v, struct error *err)
{
	const char *max = vmx_get(v, "sched.mem.max");
	bool none = !max || !*max || !strcasecmp(max, "unlimited") || !strcmp(max, "-1");
	uint64_t mib = 0;
	int r = none ? 0
		     : vmx_get_number(v, "sched.mem.max", 0, MEMORY_LIMIT_MIN >> 20, UINT32_MAX,
				      &mib, err);

	if (r == 0)
		r = vmx_get_number(v, "hanok.mem.limit", mib, MEMORY_LIMIT_MIN >> 20, UINT32_MAX,
				   &mib, err);
	c->memory_limit_bytes = mib << 20;
	return r;
}

static int read_memory_shares(struct vm_config *c, const struct vmx *v, struct error *err)
{
	const char *shares = vmx_get(v, "sched.mem.shares");
	uint64_t mib = 0;
	int r = vmx_get_number(v, "sched.mem.minSize", 0, 0, UINT32_MAX, &mib, err);

	if (r == 0)
		r = vmx_get_number(v, "sched.mem.min", mib, 0, UINT32_MAX, &mib, err);
	c->memory_min_bytes = mib << 20;
	if (r == 0)
		r = vmx_get_bool(v, "hanok.mem.share", false, &c->memory_share, err);
	if (r < 0 || !shares || !*shares || mem_parse_shares(shares, &c->memory_shares))
		return r;
	return error_set(
		err, -EINVAL,
		"%s: sched.mem.shares = \"%.40s\": it is low, normal, high or a number from "
		"1 to %d",
		vmx_name(v), shares, MEM_SHARES_MAX);
}

static int read_balloon(struct vm_config *c, const struct vmx *v, struct error *err)
{
	const char *mode = vmx_get(v, "hanok.mem.balloon");
	bool present;
	int r = vmx_get_bool(v, "hanok.balloon", true, &present, err);

	if (r == 0 && mode && *mode && strcasecmp(mode, "auto") && strcasecmp(mode, "off"))
		return error_set(err, -EINVAL,
				 "%s: hanok.mem.balloon = \"%.40s\": it is either auto or off",
				 vmx_name(v), mode);
	c->balloon = !present				? BALLOON_NONE
		     : mode && !strcasecmp(mode, "off") ? BALLOON_OFF
							: BALLOON_AUTO;
	return r;
}

int vm_config_read(struct vm_config *c, const struct vmx *v, const char *folder, struct error *err)
{
	uint64_t memory_mib = 0, cpus = 0;

	*c = (struct vm_config){0};
	int r = vmx_get_number(v, "memsize", MEMORY_MIB_DEFAULT, 1, UINT32_MAX, &memory_mib, err);
	if (r == 0)
		r = vmx_get_number(v, "numvcpus", 1, 1, BOARD_CPUS_MAX, &cpus, err);
	c->memory_bytes = memory_mib << 20;
	if (r == 0)
		r = read_memory_limit(c, v, err);
	if (r == 0)
		r = read_memory_shares(c, v, err);
	if (r == 0)
		r = read_balloon(c, v, err);
	c->cpus = (unsigned)cpus;
	if (r == 0)
		r = read_texts(c, v, folder, err);
	if (r == 0)
		r = check_firmware(v, err);
	for (unsigned n = 0; r == 0 && n < BOARD_SERIAL_PORTS; n++)
		r = read_serial(c, v, n, folder, err);
	if (r == 0)
		r = read_nics(c, v, err);
	if (r == 0)
		r = read_storage(c, v, folder, err);
	return r;
}
