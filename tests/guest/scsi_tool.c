/* SPDX-License-Identifier: Apache-2.0 */
/* scsi_tool DEVICE device|bus|host|eject|load: resets (Linux scsi/sg.h) and a CD drive's tray
 * (linux/cdrom.h), for test_scsi.py. */
#include <fcntl.h>
#include <linux/cdrom.h>
#include <scsi/sg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int request, value;
	} kinds[] = {{"device", SG_SCSI_RESET, SG_SCSI_RESET_DEVICE},
		     {"bus", SG_SCSI_RESET, SG_SCSI_RESET_BUS},
		     {"host", SG_SCSI_RESET, SG_SCSI_RESET_HOST},
		     {"eject", CDROMEJECT, 0},
		     {"load", CDROMCLOSETRAY, 0}};
	int fd = argc == 3 ? open(argv[1], O_RDONLY | O_NONBLOCK) : -1;

	for (unsigned i = 0; fd >= 0 && i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		int value = kinds[i].value;
		if (!strcmp(kinds[i].name, argv[2]) && ioctl(fd, kinds[i].request, &value) >= 0)
			return 0;
	}
	perror("scsi_tool");
	return 1;
}
