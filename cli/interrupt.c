/* Ctrl-C (command.h): the first asks the command to end cleanly, the second is the system's. */
#include "command.h"

#include <string.h>

volatile sig_atomic_t cli_interrupted;

static void note_interrupt(int signal_number)
{
    (void)signal_number;
    cli_interrupted = 1;
}

void cli_catch_interrupt(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = note_interrupt;
    action.sa_flags = (int)(SA_RESETHAND | SA_RESTART);
    (void)sigemptyset(&action.sa_mask);
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
}
