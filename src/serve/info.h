/* info.h - the replies to info and ping. Both say `not_ready` while no bundle can be pinned. */
#ifndef BESTROUTE_SERVE_INFO_H
#define BESTROUTE_SERVE_INFO_H

#include "call.h"

void info_answer(br_call *call);
void info_answer_ping(br_call *call);

#endif
