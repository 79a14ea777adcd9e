/* SPDX-License-Identifier: Apache-2.0 */
/* `hanok pause`, `resume` and `reset`: one request each. */
#include "app/app.h"
#include "app/vm_verb.h"

int verb_pause(int argc, char **argv)
{
	static const char help[] =
		"hanok pause: have a running machine stand still.\n"
		"\n"
		"  hanok pause mail      its processors stop between two instructions; its memory and\n"
		"                        devices stay as they are, its clock goes on\n"
		"\n"
		"`hanok resume mail` lets it go on. Nothing is written: ending it meanwhile is like\n"
		"pulling its plug.\n"
		"\n"
		"Exit status: 0 it stands still, also if it did before; 2 the command line is wrong;\n"
		"125 it does not run, or could not be asked.\n";

	return verb_ask(argc, argv, help, "pause");
}

int verb_resume(int argc, char **argv)
{
	static const char help[] =
		"hanok resume: let a paused machine go on.\n"
		"\n"
		"  hanok resume mail\n"
		"\n"
		"Exit status: 0 it runs, also if it was not paused; 2 the command line is wrong; 125 it\n"
		"has ended, or could not be asked.\n";

	return verb_ask(argc, argv, help, "resume");
}

int verb_reset(int argc, char **argv)
{
	static const char help[] =
		"hanok reset: press a running machine's reset button.\n"
		"\n"
		"  hanok reset mail      it starts again at once; the guest is not asked, and what it\n"
		"                        had not written to its disks is lost\n"
		"\n"
		"Exit status: 0 it was pressed; 2 the command line is wrong; 125 it does not run, or\n"
		"could not be asked.\n";

	return verb_ask(argc, argv, help, "reset");
}
