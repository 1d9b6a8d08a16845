/*
 * status.h - what a function that can fail returns.
 *
 * The list below makes the enum, the names and the texts. BR_NODISCARD makes
 * ignoring a status a compile error.
 */
#ifndef BESTROUTE_STATUS_H
#define BESTROUTE_STATUS_H

#define BR_STATUS_LIST(X)                                                                                    \
    X(BR_OK, 0, "success")                                                                                   \
    X(BR_EINVAL, 1, "an argument or value is invalid")                                                       \
    X(BR_ENOMEM, 2, "out of memory")                                                                         \
    X(BR_EBUSY, 3, "the queue is full, try again later")                                                     \
    X(BR_ENOTSUP, 4, "not supported")                                                                        \
    X(BR_EIO, 5, "input or output failed")                                                                   \
    X(BR_EFORMAT, 6, "malformed data")                                                                       \
    X(BR_ETOOBIG, 7, "over a limit")                                                                         \
    X(BR_ETIMEDOUT, 8, "timed out")                                                                          \
    X(BR_ENOTREADY, 9, "not ready")                                                                          \
    X(BR_EINFEASIBLE, 10, "nothing satisfies the policy")                                                    \
    X(BR_EDEVICE, 11, "the device failed")                                                                   \
    X(BR_EINTERNAL, 12, "internal error")                                                                    \
    X(BR_ECLOSED, 13, "closed")

typedef enum br_status {
#define BR_STATUS_ENUM(name, value, text) name = value,
    BR_STATUS_LIST(BR_STATUS_ENUM)
#undef BR_STATUS_ENUM
} br_status;

#define BR_NODISCARD __attribute__((warn_unused_result))

/* "BR_EINVAL"; "BR_?" for a number that is no status. Never NULL. */
const char *br_status_name(br_status status);

/* "an argument or value is invalid". Never NULL. */
const char *br_status_text(br_status status);

#endif
