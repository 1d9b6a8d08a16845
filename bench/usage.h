/* usage.h - processor time that a process has used so far, in seconds over all cores. */
#ifndef BESTROUTE_BENCH_USAGE_H
#define BESTROUTE_BENCH_USAGE_H

double usage_of_this_s(void);

/* Negative: there is no such process. */
double usage_of_process_s(int pid);

#endif
