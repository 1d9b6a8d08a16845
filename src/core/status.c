/* status.c - names and texts of br_status, from its one list. */
#include "bestroute/status.h"

const char *br_status_name(br_status status)
{
    switch (status) {
#define CASE(name, value, text)                                                                              \
    case name:                                                                                               \
        return #name;
        BR_STATUS_LIST(CASE)
#undef CASE
    }
    return "BR_?";
}

const char *br_status_text(br_status status)
{
    switch (status) {
#define CASE(name, value, text)                                                                              \
    case name:                                                                                               \
        return text;
        BR_STATUS_LIST(CASE)
#undef CASE
    }
    return "unknown status";
}
