/* Fails one file-system call below a folder: loaded with LD_PRELOAD, armed by ctypes.

   Calls are counted that name a path below the folder, or a file opened there. The
   n-th fails with an error number, ends the process by SIGKILL (code -1), or, with
   `sticky`, it and all that follow fail. Nothing is counted while disarmed. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define FILES 4096
static char folder[4096], log_text[1 << 20];
static size_t length, log_size;
static long count, target;
static int code, sticky, logging;
static char ours[FILES];

void faults_arm(const char *path, long n, int error, int keep_failing, int log) {
    snprintf(folder, sizeof folder, "%s", path);
    count = 0, target = n, code = error, sticky = keep_failing, logging = log;
    log_size = 0, log_text[0] = 0;
    length = strlen(folder);
}
void faults_disarm(void) { length = 0; }
long faults_count(void) { return count; }
const char *faults_log(void) { return log_text; }

static int below(const char *path) {
    return length && path && strncmp(path, folder, length) == 0;
}
static int fails(const char *call, const char *path) {
    count++;
    if (logging && log_size + strlen(path) + 64 < sizeof log_text)
        log_size += sprintf(log_text + log_size, "%s %s\n", call, path);
    if (target < 1 || (sticky ? count < target : count != target)) return 0;
    if (code < 0) kill(getpid(), SIGKILL);
    errno = code;
    return 1;
}
static int fails_at(const char *call, const char *path) {
    return below(path) && fails(call, path);
}
static int fails_on(const char *call, int fd) {
    return length && fd >= 0 && fd < FILES && ours[fd] && fails(call, "(open file)");
}
static int opened(int fd, const char *path) {
    if (fd >= 0 && fd < FILES) ours[fd] = below(path);
    return fd;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define OPEN(name)                                                             \
    int name(const char *path, int flags, ...) {                               \
        va_list more;                                                          \
        va_start(more, flags);                                                 \
        mode_t mode = va_arg(more, mode_t);                                    \
        va_end(more);                                                          \
        if (fails_at(#name, path)) return -1;                                  \
        return opened(REAL(name)(path, flags, mode), path);                    \
    }
#define OPENAT(name)                                                           \
    int name(int at, const char *path, int flags, ...) {                       \
        va_list more;                                                          \
        va_start(more, flags);                                                 \
        mode_t mode = va_arg(more, mode_t);                                    \
        va_end(more);                                                          \
        if (fails_at(#name, path)) return -1;                                  \
        return opened(REAL(name)(at, path, flags, mode), path);                \
    }
OPEN(open) OPEN(open64) OPENAT(openat) OPENAT(openat64)

#define ON_PATH(type, bad, name, parameters, path, arguments)                  \
    type name parameters {                                                     \
        return fails_at(#name, path) ? bad : REAL(name) arguments;             \
    }
ON_PATH(int, -1, rename, (const char *a, const char *b), a, (a, b))
ON_PATH(int, -1, renameat, (int f, const char *a, int t, const char *b), a, (f, a, t, b))
ON_PATH(int, -1, unlink, (const char *a), a, (a))
ON_PATH(int, -1, unlinkat, (int f, const char *a, int g), a, (f, a, g))
ON_PATH(int, -1, mkdir, (const char *a, mode_t m), a, (a, m))
ON_PATH(int, -1, mkdirat, (int f, const char *a, mode_t m), a, (f, a, m))
ON_PATH(int, -1, rmdir, (const char *a), a, (a))
ON_PATH(int, -1, link, (const char *a, const char *b), b, (a, b))
ON_PATH(int, -1, symlink, (const char *a, const char *b), b, (a, b))
ON_PATH(int, -1, chmod, (const char *a, mode_t m), a, (a, m))
ON_PATH(int, -1, truncate, (const char *a, off_t n), a, (a, n))
ON_PATH(int, -1, stat, (const char *a, struct stat *s), a, (a, s))
ON_PATH(int, -1, lstat, (const char *a, struct stat *s), a, (a, s))
ON_PATH(int, -1, stat64, (const char *a, struct stat64 *s), a, (a, s))
ON_PATH(int, -1, lstat64, (const char *a, struct stat64 *s), a, (a, s))
ON_PATH(int, -1, access, (const char *a, int m), a, (a, m))
ON_PATH(DIR *, NULL, opendir, (const char *a), a, (a))

#define ON_FILE(type, name, parameters, fd, arguments)                         \
    type name parameters {                                                     \
        return fails_on(#name, fd) ? -1 : REAL(name) arguments;                \
    }
ON_FILE(ssize_t, write, (int fd, const void *b, size_t n), fd, (fd, b, n))
ON_FILE(ssize_t, read, (int fd, void *b, size_t n), fd, (fd, b, n))
ON_FILE(int, fsync, (int fd), fd, (fd))
ON_FILE(int, fdatasync, (int fd), fd, (fd))
ON_FILE(int, ftruncate, (int fd, off_t n), fd, (fd, n))
ON_FILE(int, ftruncate64, (int fd, off64_t n), fd, (fd, n))

int close(int fd) {
    int bad = fails_on("close", fd);
    if (fd >= 0 && fd < FILES) ours[fd] = 0;
    int found = REAL(close)(fd);
    if (bad) errno = code;
    return bad ? -1 : found;
}
