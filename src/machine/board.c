/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The board: which devices there are, in which order they come and go, and how their wires run.
 *
 *     devices --ISA IRQ--> pic --INTR--> LINT0 of all local APICs (and I/O APIC pin 0, as ExtINT)
 *                 |                          ^
 *                 '-----> ioapic --messages--'          IRQ 0 is I/O APIC pin 2, the others are theirs
 *     PCI INTx --line 0-3--> ioapic 16-19; by the PIC, IRQ 10 (lines 0, 2) and 11 (lines 1, 3)
 *     local APIC --> vCPU requests (cpu/engine.h)
 */
#include "machine/board.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "dev/chipset.h"
#include "dev/debug_exit.h"
#include "dev/ferr.h"
#include "dev/fw_cfg.h"
#include "dev/i8042.h"
#include "dev/ioapic.h"
#include "dev/lapic.h"
#include "dev/pic.h"
#include "dev/pit.h"
#include "dev/pm.h"
#include "dev/rtc.h"
#include "dev/virtio/balloon.h"
#include "machine/layout.h"

enum { ISA_IRQS = 16, IOAPIC_PIN_EXTINT = 0, IOAPIC_PIN_PIT = 2, PIC_IRQ_PCI = 10 };

/* What a vCPU's callbacks carry. */
struct board_cpu {
	struct board *board;
	unsigned index;
	struct vcpu *v;
};

/* A device on the board, to the board. */
struct part {
	const struct dev_ops *ops;
	void *dev;
};

struct board {
	struct board_config cfg;
	struct board_cpu *cpu;
	struct part *part; /* in the order of their making */
	unsigned parts;
	struct lapic_set *lapics;
	struct ioapic *ioapic;
	struct pic *pic;
	struct chipset *chipset;
	struct pit *pit;
	struct rtc *rtc;
	struct i8042 *i8042;
	struct uart *uart[BOARD_SERIAL_PORTS];
	struct pm *pm;
	struct fw_cfg *fw_cfg;
	struct ferr *ferr;
	struct debug_exit *debug_exit;
	struct balloon *balloon;
	unsigned pci_lines; /* levels of the four INTx lines; under the PCI bus's interrupt lock */
};

/* --- wires --- */

static void set_isa_irq(void *opaque, unsigned irq, int level)
{
	struct board *b = opaque;

	pic_set_irq(b->pic, irq, level);
	ioapic_set_irq(b->ioapic, irq == LAYOUT_IRQ_PIT ? IOAPIC_PIN_PIT : irq, level);
}

static void set_pci_line(void *opaque, unsigned line, int level)
{
	struct board *b = opaque;
	unsigned shared;

	b->pci_lines = (b->pci_lines & ~(1u << line)) | (unsigned)level << line;
	shared = b->pci_lines & (1u << line | 1u << (line ^ 2));
	pic_set_irq(b->pic, PIC_IRQ_PCI + line % 2, shared != 0);
	ioapic_set_irq(b->ioapic, LAYOUT_PCI_GSI_BASE + line, level);
}

static void set_pic_output(void *opaque, unsigned pin, int level)
{
	struct board *b = opaque;

	(void)pin;
	ioapic_set_irq(b->ioapic, IOAPIC_PIN_EXTINT, level);
	lapic_set_lint0(b->lapics, level);
}

static uint8_t ack_pic(void *opaque)
{
	return pic_ack(((struct board *)opaque)->pic);
}

static void send_msi(void *opaque, uint64_t address, uint32_t data)
{
	lapic_msi(((struct board *)opaque)->lapics, address, data);
}

static struct irq_line isa_line(struct board *b, unsigned irq)
{
	return (struct irq_line){.set = set_isa_irq, .opaque = b, .pin = irq};
}

/* --- what the guest does to its machine: its console's last words go first --- */

static void flush_serial(struct board *b)
{
	for (unsigned i = 0; i < BOARD_SERIAL_PORTS; i++)
		uart_flush(b->uart[i]);
}

static void on_power_off(void *opaque)
{
	struct board *b = opaque;

	flush_serial(b);
	if (b->cfg.power_off)
		b->cfg.power_off(b->cfg.opaque);
}

static void on_reset(void *opaque)
{
	struct board *b = opaque;

	flush_serial(b);
	if (b->cfg.reset)
		b->cfg.reset(b->cfg.opaque);
}

static void on_debug_exit(void *opaque, uint32_t value)
{
	struct board *b = opaque;

	flush_serial(b);
	if (b->cfg.debug_exit)
		b->cfg.debug_exit(b->cfg.opaque, value);
}

/* --- the devices --- */

static int create_lapics(struct board *b, struct error *err)
{
	const struct lapic_config cfg = {
		.bus = b->cfg.bus,
		.loop = b->cfg.loop,
		.cpus = b->cfg.cpus,
		.gpa = LAYOUT_LAPIC,
		.phys_bits = b->cfg.phys_bits,
		.tsc_hz = b->cfg.tsc_hz,
		.extint_ack = ack_pic,
		.extint_opaque = b,
	};

	return lapic_set_create(&b->lapics, &cfg, err);
}

static int create_ioapic(struct board *b, struct error *err)
{
	const struct ioapic_config cfg = {
		.bus = b->cfg.bus,
		.gpa = LAYOUT_IOAPIC,
		.id = LAYOUT_IOAPIC_ID,
		.lapics = b->lapics,
	};

	return ioapic_create(&b->ioapic, &cfg, err);
}

static int create_pic(struct board *b, struct error *err)
{
	const struct pic_config cfg = {
		.bus = b->cfg.bus,
		.master_port = LAYOUT_PIC0,
		.slave_port = LAYOUT_PIC1,
		.elcr_port = LAYOUT_ELCR,
		.output = {.set = set_pic_output, .opaque = b},
	};

	return pic_create(&b->pic, &cfg, err);
}

static int create_chipset(struct board *b, struct error *err)
{
	struct chipset_config cfg = {
		.pm_base = LAYOUT_PM1A_EVT,
		.pci = {.bus = b->cfg.bus,
			.address_port = LAYOUT_PCI_ADDRESS,
			.data_port = LAYOUT_PCI_DATA,
			.ecam_gpa = LAYOUT_ECAM_BASE,
			.ecam_bytes = LAYOUT_ECAM_BYTES,
			.msi = {.send = send_msi, .opaque = b},
			.reset = on_reset,
			.opaque = b},
	};

	_Static_assert(LAYOUT_RESET == LAYOUT_PCI_ADDRESS + 1, "the PCI bus answers at both");
	for (unsigned i = 0; i < PCI_PINS; i++)
		cfg.pci.intx[i] = (struct irq_line){.set = set_pci_line, .opaque = b, .pin = i};
	return chipset_create(&b->chipset, &cfg, err);
}

static int create_pit(struct board *b, struct error *err)
{
	const struct pit_config cfg = {
		.bus = b->cfg.bus,
		.loop = b->cfg.loop,
		.port = LAYOUT_PIT,
		.port61 = LAYOUT_PORT61,
		.irq = isa_line(b, LAYOUT_IRQ_PIT),
	};

	return pit_create(&b->pit, &cfg, err);
}

/* Memory sizes where PC firmware leaves them: base memory in KiB, memory above 1 MiB in KiB (twice)
 * and above 16 MiB in 64 KiB, memory above 4 GiB in 64 KiB; then the checksum over 10h to 2Dh. */
static void fill_nvram(struct board *b)
{
	enum { CAP = 0xffff };
	uint64_t low = mem_low_bytes(b->cfg.mem), high = mem_high_bytes(b->cfg.mem) >> 16;
	uint64_t above_1m = (low - (1 << 20)) >> 10;
	uint64_t above_16m = low > 1 << 24 ? (low - (1 << 24)) >> 16 : 0;
	const uint8_t equipment = 0x02; /* a mathematical coprocessor */
	const uint8_t ext_low = (uint8_t)(above_1m > CAP ? CAP : above_1m);
	const uint8_t ext_high = (uint8_t)((above_1m > CAP ? CAP : above_1m) >> 8);
	const uint8_t base_low = 640 & 0xff, base_high = 640 >> 8;
	unsigned sum = equipment + base_low + base_high + ext_low + ext_high;
	const uint8_t bytes[][2] = {
		{0x14, equipment},
		{0x15, base_low},
		{0x16, base_high},
		{0x17, ext_low},
		{0x18, ext_high},
		{0x2e, (uint8_t)(sum >> 8)},
		{0x2f, (uint8_t)sum},
		{0x30, ext_low},
		{0x31, ext_high},
		{0x34, (uint8_t)above_16m},
		{0x35, (uint8_t)(above_16m >> 8)},
		{0x5b, (uint8_t)high},
		{0x5c, (uint8_t)(high >> 8)},
		{0x5d, (uint8_t)(high >> 16)},
	};

	for (unsigned i = 0; i < sizeof(bytes) / sizeof(bytes[0]); i++)
		rtc_set_byte(b->rtc, bytes[i][0], bytes[i][1]);
}

static int create_rtc(struct board *b, struct error *err)
{
	const struct rtc_config cfg = {
		.bus = b->cfg.bus,
		.loop = b->cfg.loop,
		.port = LAYOUT_RTC,
		.irq = isa_line(b, LAYOUT_IRQ_RTC),
	};
	int rc = rtc_create(&b->rtc, &cfg, err);

	if (!rc)
		fill_nvram(b);
	return rc;
}

static int create_i8042(struct board *b, struct error *err)
{
	const struct i8042_config cfg = {
		.bus = b->cfg.bus,
		.data_port = LAYOUT_I8042_DATA,
		.command_port = LAYOUT_I8042_CMD,
		.port92 = LAYOUT_PORT92,
		.irq = isa_line(b, LAYOUT_IRQ_KBD),
		.reset = on_reset,
		.opaque = b,
	};

	return i8042_create(&b->i8042, &cfg, err);
}

static int create_uart(struct board *b, unsigned i, struct error *err)
{
	const struct uart_config cfg = {
		.bus = b->cfg.bus,
		.loop = b->cfg.loop,
		.port = i ? LAYOUT_COM2 : LAYOUT_COM1,
		.irq = isa_line(b, i ? LAYOUT_IRQ_COM2 : LAYOUT_IRQ_COM1),
		.backend = b->cfg.serial[i],
	};

	return uart_create(&b->uart[i], &cfg, err);
}

static int create_com1(struct board *b, struct error *err)
{
	return create_uart(b, 0, err);
}

static int create_com2(struct board *b, struct error *err)
{
	return create_uart(b, 1, err);
}

static int create_pm(struct board *b, struct error *err)
{
	const struct pm_config cfg = {
		.bus = b->cfg.bus,
		.loop = b->cfg.loop,
		.evt_port = LAYOUT_PM1A_EVT,
		.cnt_port = LAYOUT_PM1A_CNT,
		.timer_port = LAYOUT_PM_TMR,
		.gpe0_port = LAYOUT_GPE0,
		.sci = isa_line(b, LAYOUT_IRQ_SCI),
		.power_off = on_power_off,
		.opaque = b,
	};

	return pm_create(&b->pm, &cfg, err);
}

static int create_fw_cfg(struct board *b, struct error *err)
{
	const struct fw_cfg_config cfg = {
		.bus = b->cfg.bus,
		.mem = b->cfg.mem,
		.port = LAYOUT_FW_CFG,
	};

	return fw_cfg_create(&b->fw_cfg, &cfg, err);
}

static int create_ferr(struct board *b, struct error *err)
{
	struct irq_line irq = isa_line(b, LAYOUT_IRQ_FERR);

	return ferr_create(&b->ferr, b->cfg.bus, &irq, err);
}

static int create_debug_exit(struct board *b, struct error *err)
{
	if (!b->cfg.debug_exit_port)
		return 0;
	return debug_exit_create(&b->debug_exit, b->cfg.bus, b->cfg.debug_exit_port, on_debug_exit,
				 b, err);
}

static int create_balloon(struct board *b, struct error *err)
{
	const struct balloon_config cfg = {
		.pci = chipset_pci(b->chipset),
		.slot = LAYOUT_BALLOON_SLOT,
		.mem = b->cfg.mem,
		.loop = b->cfg.loop,
	};

	return b->cfg.balloon ? balloon_create(&b->balloon, &cfg, err) : 0;
}

/*
 * The board table: what every board has, in this order; storage controllers follow. Create, reset,
 * save and restore go down, destroy goes up. Interrupt controllers come before what drives their
 * inputs. On restore they have the lines' levels back before the devices drive the same levels
 * again, so that nothing sees an edge.
 */
#define AT(member) offsetof(struct board, member)
static const struct {
	const struct dev_ops *ops;
	size_t at; /* of the device's pointer in struct board; NULL there: not on this board */
	int (*create)(struct board *b, struct error *err);
} devices[] = {
	{&lapic_ops, AT(lapics), create_lapics},
	{&ioapic_ops, AT(ioapic), create_ioapic},
	{&pic_ops, AT(pic), create_pic},
	{&chipset_ops, AT(chipset), create_chipset},
	{&pit_ops, AT(pit), create_pit},
	{&rtc_ops, AT(rtc), create_rtc},
	{&i8042_ops, AT(i8042), create_i8042},
	{&uart_ops, AT(uart[0]), create_com1},
	{&uart_ops, AT(uart[1]), create_com2},
	{&pm_ops, AT(pm), create_pm},
	{&fw_cfg_ops, AT(fw_cfg), create_fw_cfg},
	{&ferr_ops, AT(ferr), create_ferr},
	{&debug_exit_ops, AT(debug_exit), create_debug_exit},
	{&balloon_ops, AT(balloon), create_balloon},
};
enum { DEVICES = sizeof(devices) / sizeof(devices[0]) };

/* On the board from now on: its turn in what follows is after those added before. */
static void add_part(struct board *b, const struct dev_ops *ops, void *dev)
{
	b->part[b->parts++] = (struct part){ops, dev};
}

static int create_devices(struct board *b, struct error *err)
{
	int rc = 0;

	for (unsigned i = 0; !rc && i < DEVICES; i++) {
		rc = devices[i].create(b, err);
		void *dev = *(void **)((char *)b + devices[i].at);
		if (!rc && dev)
			add_part(b, devices[i].ops, dev);
	}
	return rc;
}

static int create_storage(struct board *b, struct error *err)
{
	int rc = 0;

	for (unsigned i = 0; !rc && i < b->cfg.controllers; i++) {
		const struct board_controller *c = &b->cfg.controller[i];
		const struct storage_config cfg = {
			.bus = b->cfg.bus,
			.pci = chipset_pci(b->chipset),
			.slot = LAYOUT_STORAGE_SLOT + i,
			.mem = b->cfg.mem,
			.loop = b->cfg.loop,
			.cpus = b->cfg.cpus,
			.index = i,
			.units = c->units,
			.unit_count = c->unit_count,
			.isa_irq = {isa_line(b, LAYOUT_IRQ_IDE), isa_line(b, LAYOUT_IRQ_IDE + 1)},
		};
		void *dev;
		rc = c->kind->create(&dev, &cfg, err);
		if (!rc)
			add_part(b, &c->kind->ops, dev);
	}
	return rc;
}

static int create_nics(struct board *b, struct error *err)
{
	int rc = 0;

	for (unsigned i = 0; !rc && i < b->cfg.nics; i++) {
		const struct board_nic *n = &b->cfg.nic[i];
		struct nic_config cfg = {
			.bus = b->cfg.bus,
			.pci = chipset_pci(b->chipset),
			.slot = LAYOUT_NIC_SLOT + i,
			.mem = b->cfg.mem,
			.loop = b->cfg.loop,
			.cpus = b->cfg.cpus,
			.index = i,
			.cable = n->cable,
		};
		void *dev;
		memcpy(cfg.mac, n->mac, sizeof(cfg.mac));
		rc = n->kind->create(&dev, &cfg, err);
		if (!rc)
			add_part(b, &n->kind->ops, dev);
	}
	return rc;
}

void board_destroy(struct board *b)
{
	if (!b)
		return;
	while (b->parts) {
		struct part *p = &b->part[--b->parts];
		p->ops->destroy(p->dev);
	}
	free(b->part);
	free(b->cpu);
	free(b);
}

int board_create(struct board **out, const struct board_config *cfg, struct error *err)
{
	struct board *b;
	int rc = 0;

	*out = NULL;
	if (!cfg->cpus || cfg->cpus > BOARD_CPUS_MAX || !cfg->tsc_hz || cfg->phys_bits < 32 ||
	    cfg->phys_bits > 52)
		return error_set(err, -EINVAL, "board: %u vCPUs of %u address bits cannot be",
				 cfg->cpus, cfg->phys_bits);
	b = calloc(1, sizeof(*b));
	if (!b)
		return error_set(err, -ENOMEM, "board: out of memory");
	b->cfg = *cfg;
	b->cpu = calloc(cfg->cpus, sizeof(*b->cpu));
	b->part = calloc(DEVICES + cfg->controllers + cfg->nics, sizeof(*b->part));
	if (!b->cpu || !b->part)
		rc = error_set(err, -ENOMEM, "board: out of memory");
	for (unsigned i = 0; !rc && i < cfg->cpus; i++)
		b->cpu[i] = (struct board_cpu){.board = b, .index = i};
	if (!rc)
		rc = create_devices(b, err);
	if (!rc)
		rc = create_storage(b, err);
	if (!rc)
		rc = create_nics(b, err);
	if (rc) {
		board_destroy(b);
		return rc;
	}
	*out = b;
	return 0;
}

void board_reset(struct board *b)
{
	for (unsigned i = 0; i < b->parts; i++)
		b->part[i].ops->reset(b->part[i].dev);
}

void board_state(struct board *b, struct state_stream *s)
{
	for (unsigned i = 0; i < b->parts; i++)
		b->part[i].ops->state(b->part[i].dev, s);
}

/* --- vCPUs --- */

static int vcpu_irq_ack(void *opaque)
{
	struct board_cpu *c = opaque;

	return lapic_ack(c->board->lapics, c->index);
}

static uint8_t vcpu_get_cr8(void *opaque)
{
	struct board_cpu *c = opaque;

	return lapic_get_cr8(c->board->lapics, c->index);
}

static void vcpu_set_cr8(void *opaque, uint8_t cr8)
{
	struct board_cpu *c = opaque;

	lapic_set_cr8(c->board->lapics, c->index, cr8);
}

static void vcpu_set_ferr(void *opaque, bool level)
{
	struct board_cpu *c = opaque;

	ferr_set(c->board->ferr, level);
}

void board_vcpu_callbacks(struct board *b, unsigned cpu, struct vcpu_board *out)
{
	*out = (struct vcpu_board){
		.irq_ack = vcpu_irq_ack,
		.get_cr8 = vcpu_get_cr8,
		.set_cr8 = vcpu_set_cr8,
		.set_ferr = vcpu_set_ferr,
		.opaque = &b->cpu[cpu],
	};
}

static void lapic_irq(void *opaque, bool level)
{
	struct board_cpu *c = opaque;

	if (level)
		vcpu_request(c->v, VCPU_REQ_IRQ);
	else
		vcpu_unrequest(c->v, VCPU_REQ_IRQ);
}

static void lapic_nmi(void *opaque)
{
	vcpu_request(((struct board_cpu *)opaque)->v, VCPU_REQ_NMI);
}

static void lapic_init(void *opaque)
{
	vcpu_request(((struct board_cpu *)opaque)->v, VCPU_REQ_INIT);
}

static void lapic_sipi(void *opaque, uint8_t vector)
{
	vcpu_send_sipi(((struct board_cpu *)opaque)->v, vector);
}

void board_attach_vcpu(struct board *b, unsigned cpu, struct vcpu *v)
{
	const struct lapic_cpu ops = {
		.set_irq = lapic_irq,
		.nmi = lapic_nmi,
		.init = lapic_init,
		.sipi = lapic_sipi,
		.opaque = &b->cpu[cpu],
	};

	if (v)
		b->cpu[cpu].v = v;
	lapic_attach(b->lapics, cpu, v ? &ops : NULL);
}

int board_rdmsr(struct board *b, unsigned cpu, uint32_t index, uint64_t *value)
{
	return lapic_rdmsr(b->lapics, cpu, index, value);
}

int board_wrmsr(struct board *b, unsigned cpu, uint32_t index, uint64_t value)
{
	return lapic_wrmsr(b->lapics, cpu, index, value);
}

void board_set_tsc_offset(struct board *b, unsigned cpu, uint64_t offset)
{
	lapic_set_tsc_offset(b->lapics, cpu, offset);
}

/* --- the outside --- */

void board_power_button(struct board *b)
{
	pm_power_button(b->pm);
}

void board_nmi(struct board *b)
{
	lapic_set_lint1(b->lapics, 1);
	lapic_set_lint1(b->lapics, 0);
}

size_t board_serial_receive(struct board *b, unsigned port, const uint8_t *data, size_t len)
{
	return port < BOARD_SERIAL_PORTS ? uart_receive(b->uart[port], data, len) : 0;
}

void board_serial_writable(struct board *b, unsigned port)
{
	if (port < BOARD_SERIAL_PORTS)
		uart_writable(b->uart[port]);
}

void board_serial_break(struct board *b, unsigned port)
{
	if (port < BOARD_SERIAL_PORTS)
		uart_receive_break(b->uart[port]);
}

struct pci_bus *board_pci(struct board *b)
{
	return chipset_pci(b->chipset);
}

struct fw_cfg *board_fw_cfg(struct board *b)
{
	return b->fw_cfg;
}

struct balloon *board_balloon(struct board *b)
{
	return b->balloon;
}

struct msi_sink board_msi(struct board *b)
{
	return (struct msi_sink){.send = send_msi, .opaque = b};
}
