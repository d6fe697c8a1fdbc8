/* Sets the wall clock back an hour, for one process, as soon as the file named by CLOCK_SET_BACK exists.
   Loaded with LD_PRELOAD; the monotonic clock stays as it is, as it does when an operator sets the clock. */

#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    const char *flag = getenv("CLOCK_SET_BACK");
    if (result == 0 && clock == CLOCK_REALTIME && flag != NULL && access(flag, F_OK) == 0)
        now->tv_sec -= 3600;
    return result;
}
