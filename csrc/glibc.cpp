// Lets modules that a newer machine compiled load on glibc 2.28 (RHEL 8), as torch's own do.
//
// libstdc++'s shared_ptr, which torch's headers use, counts without atomics while glibc says that
// the process has one thread. glibc says so in a variable of version 2.32, and nothing else in the
// modules is newer than 2.28. Theirs is this one, and always counts with atomics.
#ifdef __linux__
extern "C" {
__attribute__((visibility("hidden"))) char __libc_single_threaded = 0;
}
#endif
