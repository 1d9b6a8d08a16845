/*
 * keeper.h - what the service does beside answering, on the thread that runs it: it reloads, tries lost
 * devices again, frees bundles that are no longer used, and ends when it is told to and the open calls are
 * answered.
 *
 * One thing at a time, and never with the state's lock held.
 */
#ifndef BESTROUTE_SERVE_KEEPER_H
#define BESTROUTE_SERVE_KEEPER_H

#include "call.h"

/* Runs until state_stop, and then until no call is open or the drain's time is over. BR_EDEVICE: the last
 * device was lost. */
BR_NODISCARD br_status keeper_run(br_server *server);

/* Asks for a reload of the folder of the current bundle. From any thread. */
void keeper_ask(br_server *server);

/* Asks for the reload that the call describes, and replies to it when that is done, or refused. From any
 * thread. */
void keeper_ask_for(br_server *server, br_call *call);

/* For a server that is being destroyed, when no call is open: refuses the reloads that were not begun, and
 * frees every bundle. Waits for a device that hangs. */
void keeper_end(br_server *server);

#endif
