/* Makes the N-th call that changes files below a folder fail, as a full or a broken disk does.

   Preloaded with LD_PRELOAD. FAULT_FOLDER: the folder, absolute. FAULT_AT: N, from 1. 0 counts only.
   FAULT_ALL: set where all calls from then on fail but renames. FAULT_REPORT: a file. At the end of the process
   it gets the number of calls, and the name and the path of the first one that failed. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long calls;
static long at;
static int all;
static char folder[PATH_MAX];
static char hit[PATH_MAX + 64];
static atomic_int has_hit;

__attribute__((constructor)) static void begin(void)
{
    const char *text = getenv("FAULT_AT");
    at = text ? atol(text) : 0;
    all = getenv("FAULT_ALL") != NULL;
    text = getenv("FAULT_FOLDER");
    if (text)
        snprintf(folder, sizeof folder, "%s", text);
}

__attribute__((destructor)) static void end(void)
{
    const char *path = getenv("FAULT_REPORT");
    if (!path)
        return;
    char text[sizeof hit + 64];
    int n = snprintf(text, sizeof text, "%ld\n%s\n", atomic_load(&calls), hit);
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd >= 0) {
        syscall(SYS_write, fd, text, (size_t)n);
        syscall(SYS_close, fd);
    }
}

/* Whether the path lies below the folder. A relative one is taken from `dir`. */
static int is_inside(int dir, const char *path, char *whole)
{
    if (!folder[0] || !path)
        return 0;
    if (path[0] == '/') {
        snprintf(whole, PATH_MAX, "%s", path);
    } else {
        char link[64], base[PATH_MAX];
        if (dir == AT_FDCWD)
            snprintf(link, sizeof link, "/proc/self/cwd");
        else
            snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
        ssize_t n = readlink(link, base, sizeof base - 1);
        if (n < 0)
            return 0;
        base[n] = 0;
        if (snprintf(whole, PATH_MAX, "%s/%s", base, path) >= PATH_MAX)
            return 0;
    }
    size_t n = strlen(folder);
    return !strncmp(whole, folder, n) && (whole[n] == '/' || whole[n] == 0);
}

/* Whether the descriptor is a file, or a folder, below the folder. */
static int is_file_inside(int fd, char *whole)
{
    char link[64];
    struct stat facts;
    if (!folder[0] || fstat(fd, &facts) || !(S_ISREG(facts.st_mode) || S_ISDIR(facts.st_mode)))
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, whole, PATH_MAX - 1);
    if (n < 0)
        return 0;
    whole[n] = 0;
    return is_inside(AT_FDCWD, whole, whole + PATH_MAX);
}

/* Counts a call, and says whether it fails. */
static int fails(const char *name, const char *path, int error)
{
    long n = atomic_fetch_add(&calls, 1) + 1;
    if (!at || n < at)
        return 0;
    /* To give a file another name takes no room. */
    if (n != at && (!all || !strncmp(name, "rename", 6)))
        return 0;
    if (!atomic_exchange(&has_hit, 1))
        snprintf(hit, sizeof hit, "%s %s", name, path);
    errno = error;
    return 1;
}

#define REAL(type, name, ...)                                  \
    static type (*real)(__VA_ARGS__);                          \
    if (!real)                                                 \
        real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

#define OF_FD(type, name, error, signature, arguments, ...)    \
    type name signature                                        \
    {                                                          \
        REAL(type, #name, __VA_ARGS__);                        \
        char path[2 * PATH_MAX];                               \
        if (is_file_inside(fd, path) && fails(#name, path, error)) \
            return -1;                                         \
        return real arguments;                                 \
    }

OF_FD(ssize_t, write, ENOSPC, (int fd, const void *b, size_t n), (fd, b, n), int, const void *, size_t)
OF_FD(ssize_t, pwrite, ENOSPC, (int fd, const void *b, size_t n, off_t o), (fd, b, n, o),
      int, const void *, size_t, off_t)
OF_FD(ssize_t, pwrite64, ENOSPC, (int fd, const void *b, size_t n, off64_t o), (fd, b, n, o),
      int, const void *, size_t, off64_t)
OF_FD(ssize_t, writev, ENOSPC, (int fd, const struct iovec *v, int n), (fd, v, n),
      int, const struct iovec *, int)
OF_FD(int, fsync, EIO, (int fd), (fd), int)
OF_FD(int, fdatasync, EIO, (int fd), (fd), int)
OF_FD(int, ftruncate, ENOSPC, (int fd, off_t n), (fd, n), int, off_t)
OF_FD(int, ftruncate64, ENOSPC, (int fd, off64_t n), (fd, n), int, off64_t)

#define OF_PATH(name, directory, target, signature, arguments, ...) \
    int name signature                                         \
    {                                                          \
        REAL(int, #name, __VA_ARGS__);                         \
        char path[PATH_MAX];                                   \
        if (is_inside(directory, target, path) && fails(#name, path, ENOSPC)) \
            return -1;                                         \
        return real arguments;                                 \
    }

OF_PATH(rename, AT_FDCWD, b, (const char *a, const char *b), (a, b), const char *, const char *)
OF_PATH(renameat, e, b, (int d, const char *a, int e, const char *b), (d, a, e, b),
        int, const char *, int, const char *)
OF_PATH(renameat2, e, b, (int d, const char *a, int e, const char *b, unsigned f), (d, a, e, b, f),
        int, const char *, int, const char *, unsigned)
OF_PATH(link, AT_FDCWD, b, (const char *a, const char *b), (a, b), const char *, const char *)
OF_PATH(linkat, e, b, (int d, const char *a, int e, const char *b, int f), (d, a, e, b, f),
        int, const char *, int, const char *, int)
OF_PATH(symlink, AT_FDCWD, b, (const char *a, const char *b), (a, b), const char *, const char *)
OF_PATH(mkdir, AT_FDCWD, a, (const char *a, mode_t m), (a, m), const char *, mode_t)
OF_PATH(mkdirat, d, a, (int d, const char *a, mode_t m), (d, a, m), int, const char *, mode_t)

/* Only what makes a file counts: an open without O_CREAT changes nothing. */
#define OPENS(name)                                            \
    int name(const char *a, int flags, ...)                    \
    {                                                          \
        REAL(int, #name, const char *, int, ...);              \
        char path[PATH_MAX];                                   \
        mode_t mode = 0;                                       \
        if (flags & (O_CREAT | O_TMPFILE)) {                   \
            va_list more;                                      \
            va_start(more, flags);                             \
            mode = va_arg(more, mode_t);                       \
            va_end(more);                                      \
        }                                                      \
        if ((flags & O_CREAT) && is_inside(AT_FDCWD, a, path) && fails(#name, path, ENOSPC)) \
            return -1;                                         \
        return real(a, flags, mode);                           \
    }

OPENS(open)
OPENS(open64)
