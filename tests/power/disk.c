/* Stands between a program and the files below one folder: writes down, in one order, everything that changes them and
   when a sync began and ended; and lets operations fail on demand. Loaded with LD_PRELOAD.

   RECORDED_ROOT is the folder (an absolute path), RECORDED_LOG the file of records, RECORDED_FAULTS a file of one
   `struct faults` through which a test says what shall fail. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN = 1, WRITE, TRUNCATE, SYNC_BEGINS, SYNC_ENDS, RENAME, UNLINK, MKDIR, RMDIR, MAPPED, CLOSE, LINK };
enum { F_CREATE = 1, F_WRITE = 2, F_SYNC = 4, F_NAME = 8, F_READ = 16, F_TRUNCATE = 32 };
enum { CREATED = 1, EMPTIED = 2 };

struct head { uint32_t size; uint8_t op, flags; uint16_t first; int32_t fd; int64_t offset; };
struct faults { volatile int32_t armed, what, error, once; volatile int64_t after, hits; };

static char root[PATH_MAX];
static size_t root_size;
static int record_fd = -1;
static pid_t owner;
static struct faults *faults;
static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;
static char tracked[65536];


static void begin(void) __attribute__((constructor));
static void begin(void) {
    const char *folder = getenv("RECORDED_ROOT"), *log = getenv("RECORDED_LOG"), *told = getenv("RECORDED_FAULTS");
    unsetenv("LD_PRELOAD");
    if (folder == NULL || log == NULL) return;
    strncpy(root, folder, sizeof root - 1);
    root_size = strlen(root);
    owner = getpid();
    record_fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    record_fd = syscall(SYS_fcntl, record_fd, F_DUPFD_CLOEXEC, 900);
    if (told != NULL) {
        int fd = syscall(SYS_openat, AT_FDCWD, told, O_RDWR | O_CLOEXEC);
        faults = (void *)syscall(SYS_mmap, NULL, sizeof *faults, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        syscall(SYS_close, fd);
    }
}

static int ours(void) { return record_fd >= 0 && getpid() == owner; }
static int held(int fd) { return fd >= 0 && fd < (int)sizeof tracked && tracked[fd] && ours(); }

/* The path below the folder, or NULL for one elsewhere. */
static const char *inside(int at, const char *path, char *room) {
    if (!ours() || path == NULL) return NULL;
    if (path[0] != '/') {
        char link[64];
        ssize_t size;
        if (at == AT_FDCWD) strcpy(link, "/proc/self/cwd");
        else { strcpy(link, "/proc/self/fd/"); int n = 14, v = at; char d[12]; int k = 0;
               do { d[k++] = '0' + v % 10; v /= 10; } while (v); while (k) link[n++] = d[--k]; link[n] = 0; }
        size = readlink(link, room, PATH_MAX - 1);
        if (size < 0 || size + strlen(path) + 2 > PATH_MAX) return NULL;
        room[size] = '/';
        strcpy(room + size + 1, path);
    } else {
        if (strlen(path) >= PATH_MAX) return NULL;
        strcpy(room, path);
    }
    if (strncmp(room, root, root_size) != 0 || (room[root_size] != '/' && room[root_size] != 0)) return NULL;
    return room[root_size] ? room + root_size + 1 : room + root_size;
}

static void put(int op, int flags, int fd, int64_t offset, const char *first, const void *rest, size_t size) {
    struct head head = {0};
    size_t named = first ? strlen(first) : 0;
    head.size = named + size; head.op = op; head.flags = flags; head.first = named; head.fd = fd; head.offset = offset;
    struct iovec parts[3] = {{&head, sizeof head}, {(void *)first, named}, {(void *)rest, size}};
    int kept = errno;
    if (syscall(SYS_writev, record_fd, parts, 3) != (ssize_t)(sizeof head + named + size)) abort();
    errno = kept;
}

/* Whether this operation is to fail now. */
static int fails(int what) {
    if (faults == NULL || !faults->armed || !(faults->what & what)) return 0;
    if (__atomic_fetch_sub(&faults->after, 1, __ATOMIC_SEQ_CST) > 0) return 0;
    __atomic_fetch_add(&faults->hits, 1, __ATOMIC_SEQ_CST);
    if (faults->once) faults->armed = 0;
    errno = faults->error;
    return 1;
}

static int opened(int at, const char *path, int flags, mode_t mode) {
    char room[PATH_MAX];
    const char *name = inside(at, path, room);
    if (name == NULL) return syscall(SYS_openat, at, path, flags, mode);
    pthread_mutex_lock(&order);
    struct stat was;
    int there = fstatat(at, path, &was, 0) == 0;
    if (!there && (flags & O_CREAT) && fails(F_CREATE)) { pthread_mutex_unlock(&order); return -1; }
    int fd = syscall(SYS_openat, at, path, flags, mode);
    if (fd >= 0 && fd < (int)sizeof tracked) {
        tracked[fd] = 1;
        put(OPEN, (there ? 0 : CREATED) | (there && (flags & O_TRUNC) && was.st_size ? EMPTIED : 0), fd, 0, name, NULL, 0);
    }
    pthread_mutex_unlock(&order);
    return fd;
}

#define MODE mode_t mode = 0; if (flags & (O_CREAT | O_TMPFILE)) { va_list v; va_start(v, flags); mode = va_arg(v, int); va_end(v); }
int open(const char *path, int flags, ...) { MODE return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE return opened(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE return opened(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE return opened(at, path, flags, mode); }

int close(int fd) {
    if (!held(fd)) return syscall(SYS_close, fd);
    pthread_mutex_lock(&order);
    tracked[fd] = 0;
    put(CLOSE, 0, fd, 0, NULL, NULL, 0);
    int done = syscall(SYS_close, fd);
    pthread_mutex_unlock(&order);
    return done;
}

/* A disk that fills up takes a part first. */
static size_t taken(int fd, size_t size) {
    if (!fails(F_WRITE)) return size;
    return faults->error == ENOSPC && faults->hits == 1 && size > 1 ? size / 2 : (size_t)-1;
}

ssize_t write(int fd, const void *data, size_t size) {
    if (!held(fd)) return syscall(SYS_write, fd, data, size);
    pthread_mutex_lock(&order);
    ssize_t done = -1;
    size = taken(fd, size);
    if (size != (size_t)-1) {
        done = syscall(SYS_write, fd, data, size);
        if (done > 0) put(WRITE, 0, fd, lseek(fd, 0, SEEK_CUR) - done, NULL, data, done);
    }
    pthread_mutex_unlock(&order);
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    if (!held(fd)) return syscall(SYS_pwrite64, fd, data, size, offset);
    pthread_mutex_lock(&order);
    ssize_t done = -1;
    size = taken(fd, size);
    if (size != (size_t)-1) {
        done = syscall(SYS_pwrite64, fd, data, size, offset);
        if (done > 0) put(WRITE, 0, fd, offset, NULL, data, done);
    }
    pthread_mutex_unlock(&order);
    return done;
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) { return pwrite(fd, data, size, offset); }

ssize_t read(int fd, void *data, size_t size) {
    if (held(fd) && fails(F_READ)) return -1;
    return syscall(SYS_read, fd, data, size);
}
ssize_t pread(int fd, void *data, size_t size, off_t offset) {
    if (held(fd) && fails(F_READ)) return -1;
    return syscall(SYS_pread64, fd, data, size, offset);
}
ssize_t pread64(int fd, void *data, size_t size, off64_t offset) { return pread(fd, data, size, offset); }

int ftruncate(int fd, off_t size) {
    if (!held(fd)) return syscall(SYS_ftruncate, fd, size);
    if (fails(F_TRUNCATE)) return -1;
    pthread_mutex_lock(&order);
    int done = syscall(SYS_ftruncate, fd, size);
    if (done == 0) put(TRUNCATE, 0, fd, size, NULL, NULL, 0);
    pthread_mutex_unlock(&order);
    return done;
}
int ftruncate64(int fd, off64_t size) { return ftruncate(fd, size); }

static int synced(int fd, int call) {
    if (!held(fd)) return syscall(call, fd);
    if (fails(F_SYNC)) return -1;
    pthread_mutex_lock(&order);
    put(SYNC_BEGINS, 0, fd, pthread_self(), NULL, NULL, 0);
    pthread_mutex_unlock(&order);
    int done = syscall(call, fd);
    pthread_mutex_lock(&order);
    if (done == 0) put(SYNC_ENDS, 0, fd, pthread_self(), NULL, NULL, 0);
    pthread_mutex_unlock(&order);
    return done;
}
int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    char room[PATH_MAX], other[PATH_MAX];
    const char *old = inside(from_at, from, room), *new = inside(to_at, to, other);
    if (old == NULL || new == NULL) return syscall(SYS_renameat2, from_at, from, to_at, to, flags);
    if (fails(F_NAME)) return -1;
    pthread_mutex_lock(&order);
    int done = syscall(SYS_renameat2, from_at, from, to_at, to, flags);
    if (done == 0) put(RENAME, 0, 0, 0, old, new, strlen(new));
    pthread_mutex_unlock(&order);
    return done;
}
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int from_at, const char *from, int to_at, const char *to) { return renameat2(from_at, from, to_at, to, 0); }

int linkat(int from_at, const char *from, int to_at, const char *to, int flags) {
    char room[PATH_MAX], other[PATH_MAX];
    const char *old = inside(from_at, from, room), *new = inside(to_at, to, other);
    if (old == NULL || new == NULL) return syscall(SYS_linkat, from_at, from, to_at, to, flags);
    pthread_mutex_lock(&order);
    int done = syscall(SYS_linkat, from_at, from, to_at, to, flags);
    if (done == 0) put(LINK, 0, 0, 0, old, new, strlen(new));
    pthread_mutex_unlock(&order);
    return done;
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int unlinkat(int at, const char *path, int flags) {
    char room[PATH_MAX];
    const char *name = inside(at, path, room);
    if (name == NULL) return syscall(SYS_unlinkat, at, path, flags);
    pthread_mutex_lock(&order);
    int done = syscall(SYS_unlinkat, at, path, flags);
    if (done == 0) put(flags & AT_REMOVEDIR ? RMDIR : UNLINK, 0, 0, 0, name, NULL, 0);
    pthread_mutex_unlock(&order);
    return done;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdirat(int at, const char *path, mode_t mode) {
    char room[PATH_MAX];
    const char *name = inside(at, path, room);
    if (name == NULL) return syscall(SYS_mkdirat, at, path, mode);
    pthread_mutex_lock(&order);
    int done = syscall(SYS_mkdirat, at, path, mode);
    if (done == 0) put(MKDIR, 0, 0, 0, name, NULL, 0);
    pthread_mutex_unlock(&order);
    return done;
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

void *mmap(void *where, size_t size, int protection, int flags, int fd, off_t offset) {
    if (held(fd) && (protection & PROT_WRITE) && (flags & MAP_TYPE) != MAP_PRIVATE) {
        pthread_mutex_lock(&order);
        put(MAPPED, 0, fd, offset, NULL, NULL, 0);
        pthread_mutex_unlock(&order);
    }
    return (void *)syscall(SYS_mmap, where, size, protection, flags, fd, offset);
}
void *mmap64(void *where, size_t size, int protection, int flags, int fd, off64_t offset) {
    return mmap(where, size, protection, flags, fd, offset);
}

/* What would change files past the records: none of it is used, and none may come into use unseen. */
static int unseen(int fd) { if (held(fd)) abort(); return 0; }
ssize_t writev(int fd, const struct iovec *parts, int count) { unseen(fd); return syscall(SYS_writev, fd, parts, count); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) { unseen(fd); return syscall(SYS_pwritev, fd, parts, count, offset, 0); }
ssize_t sendfile(int to, int from, off_t *offset, size_t size) { unseen(to); return syscall(SYS_sendfile, to, from, offset, size); }
ssize_t sendfile64(int to, int from, off64_t *offset, size_t size) { unseen(to); return syscall(SYS_sendfile, to, from, offset, size); }
ssize_t copy_file_range(int from, off64_t *a, int to, off64_t *b, size_t size, unsigned flags) { unseen(to); return syscall(SYS_copy_file_range, from, a, to, b, size, flags); }
int fallocate(int fd, int mode, off_t offset, off_t size) { unseen(fd); return syscall(SYS_fallocate, fd, mode, offset, size); }
