/* faults.c: makes the C library fail where and when a test says, under a weir that is the very one that is installed.
 *
 *      weir ──► malloc(), accept4(), send() ... ──► here ──► is this the place? ──► no: the C library's own
 *                                                     │                        └─► yes: an error, once or for long
 *                                                     └──► a file in shared memory: orders in, places and counts out
 *
 * A place is a call together with the way that led to it: the return addresses on the stack, relative to where their
 * programs were loaded, as far as the third one in weir itself. Counting calls ("the 1,000th malloc") would name another
 * place each time that threads run in another order; a place stays the same from run to run, and each is tried once.
 *
 * Preloaded (LD_PRELOAD), so that all calls are seen, those of libssl, hiredis and jansson too. FAULTS_FILE names the
 * file. An order is carried out before the call: what should fail with EINTR has done nothing.
 *
 * It also keeps books: blocks and bytes that malloc() has given and not got back. What grows with each fault is a leak.
 * And it can shift the wall clock. tests/system/faults.py is the other side of the file: struct shared must be the same.
 */
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <malloc.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define PLACES_MAX 16384u
#define SEEN_FRAMES 40
#define KEPT_FRAMES 6u
#define OWN_FRAMES 3u
#define HANG (-1) /* for names: no answer as long as it stands */

/* The order is that of faults.py. */
enum call {
	CALL_MALLOC,
	CALL_CALLOC,
	CALL_REALLOC,
	CALL_ACCEPT,
	CALL_SOCKET,
	CALL_CONNECT,
	CALL_SEND,
	CALL_RECEIVE,
	CALL_READ,
	CALL_WRITE,
	CALL_POLL,
	CALL_EVENTFD,
	CALL_PIPE,
	CALL_OPEN,
	CALL_SPLICE,
	CALL_NAMES,
	CALL_THREAD,
	CALL_OPTION,
	CALL_BIND,
	CALL_RANDOM,
	CALL_WAKE,
	CALL_COUNT
};

/* A place: written once by the thread that takes it, except for the hits. */
struct place {
	_Atomic uint64_t key;
	atomic_uint hits;
	uint32_t call, frame_count, in_weir; /* in_weir: a bit for each of frames */
	uint64_t frames[KEPT_FRAMES];
};

struct shared {
	atomic_uint magic, place_count;
	atomic_uint recording;
	atomic_int armed_error; /* at the place armed_key, armed_left times */
	_Atomic uint64_t armed_key;
	atomic_int armed_left;
	atomic_uint fired;
	_Atomic int64_t live_blocks, live_bytes;
	_Atomic int64_t wall_shift_ns;
	atomic_int always[CALL_COUNT]; /* an error for each call of this kind */
	atomic_uint always_fired[CALL_COUNT];
	struct place places[PLACES_MAX];
};

static struct shared *shared;
static uintptr_t weir_start;
static __thread bool is_inside; /* backtrace() and dlsym() allocate as well */
/* glibc 2.36: getaddrinfo() without memory for its first block reads from address 0xb8, and without its third it aborts. The
   call fails as a whole for want of memory, too (CALL_NAMES). */
static __thread bool asks_for_names;

/* ---- places --------------------------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t hash, uint64_t value)
{
	hash = (hash ^ value) * UINT64_C(0x9e3779b97f4a7c15);
	return hash ^ hash >> 29;
}

/* Names the place that leads here. place is filled in. */
static uint64_t find_place(enum call call, struct place *place)
{
	void *frames[SEEN_FRAMES];
	int count = backtrace(frames, SEEN_FRAMES);
	uint64_t key = mix(0x1234, (uint64_t)call);
	unsigned own = 0;
	*place = (struct place){ .call = (uint32_t)call };
	struct dl_find_object here, object;
	if (_dl_find_object((void *)(uintptr_t)find_place, &here) != 0)
		return 0;
	for (int i = 0; i < count && own < OWN_FRAMES; i++) {
		if (_dl_find_object(frames[i], &object) != 0 || object.dlfo_map_start == here.dlfo_map_start)
			continue;
		uint64_t relative = (uint64_t)((uintptr_t)frames[i] - (uintptr_t)object.dlfo_link_map->l_addr);
		bool is_own = (uintptr_t)object.dlfo_map_start == weir_start;
		own += is_own;
		key = mix(key, relative);
		/* Of the way through a library its last step is enough to tell a reader where. */
		if (place->frame_count < KEPT_FRAMES && (is_own || place->frame_count < KEPT_FRAMES - OWN_FRAMES)) {
			place->in_weir |= (uint32_t)is_own << place->frame_count;
			place->frames[place->frame_count++] = relative;
		}
	}
	return key | 1;
}

static void note_place(uint64_t key, const struct place *place)
{
	for (unsigned i = 0; i < PLACES_MAX; i++) {
		struct place *at = &shared->places[(key + i) % PLACES_MAX];
		uint64_t empty = 0;
		if (atomic_load(&at->key) == key) {
			atomic_fetch_add(&at->hits, 1);
			return;
		}
		if (atomic_compare_exchange_strong(&at->key, &empty, key)) {
			at->call = place->call;
			at->in_weir = place->in_weir;
			memcpy(at->frames, place->frames, sizeof at->frames);
			at->frame_count = place->frame_count;
			atomic_fetch_add(&at->hits, 1);
			atomic_fetch_add(&shared->place_count, 1);
			return;
		}
		if (empty == key) {
			atomic_fetch_add(&at->hits, 1);
			return;
		}
	}
}

/* Takes one of the armed failures, if this is the place. */
static bool takes_one(uint64_t key)
{
	if (atomic_load(&shared->armed_key) != key)
		return false;
	int left = atomic_load(&shared->armed_left);
	while (left > 0)
		if (atomic_compare_exchange_weak(&shared->armed_left, &left, left - 1)) {
			atomic_fetch_add(&shared->fired, 1);
			return true;
		}
	return false;
}

/* The error with which this call is to fail; 0: it is not. */
static int fault(enum call call)
{
	if (shared == NULL || is_inside || (asks_for_names && call == CALL_MALLOC))
		return 0;
	int error = atomic_load_explicit(&shared->always[call], memory_order_relaxed);
	if (error != 0) {
		atomic_fetch_add(&shared->always_fired[call], 1);
		return error;
	}
	bool recording = atomic_load_explicit(&shared->recording, memory_order_relaxed) != 0;
	if (!recording && atomic_load_explicit(&shared->armed_left, memory_order_relaxed) <= 0)
		return 0;
	int before = errno;
	struct place place;
	is_inside = true;
	uint64_t key = find_place(call, &place);
	is_inside = false;
	if (recording)
		note_place(key, &place);
	error = takes_one(key) ? atomic_load(&shared->armed_error) : 0;
	errno = before;
	return error;
}

/* True, and errno, when this call is to fail. */
static bool fails(enum call call)
{
	int error = fault(call);
	if (error != 0)
		errno = error;
	return error != 0;
}

/* ---- the C library's own -------------------------------------------------------------------------------------------- */

/* The next of that name, behind us. ISO C has no conversion from what dlsym() returns to a function: POSIX asks for it. */
#define FIND(next, name) \
	do { \
		if ((next) == NULL) { \
			bool was_inside = is_inside; \
			is_inside = true; \
			*(void **)&(next) = dlsym(RTLD_NEXT, name); \
			is_inside = was_inside; \
		} \
	} while (0)

/* A function that fails by -1 and errno, and is otherwise the C library's. */
#define INTERPOSE(type, name, call, parameters, arguments) \
	type name parameters; \
	type name parameters \
	{ \
		static type(*next) parameters; \
		FIND(next, #name); \
		return fails(call) ? -1 : next arguments; \
	}

__attribute__((constructor)) static void open_shared(void)
{
	const char *path = getenv("FAULTS_FILE");
	struct dl_find_object weir;
	void *frames[4];
	is_inside = true;
	backtrace(frames, 4); /* loads the unwinder */
	int fd = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
	if (fd >= 0 && _dl_find_object((void *)(uintptr_t)getauxval(AT_ENTRY), &weir) == 0) {
		weir_start = (uintptr_t)weir.dlfo_map_start;
		void *memory = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (memory != MAP_FAILED)
			shared = memory;
	}
	if (fd >= 0)
		close(fd);
	is_inside = false;
}

/* ---- memory --------------------------------------------------------------------------------------------------------- */

/* dlsym() may want memory before it has found malloc(): a little of ours, never given back. */
static char early[16384];
static size_t early_used;

static bool is_early(const void *block)
{
	return (const char *)block >= early && (const char *)block < early + sizeof early;
}

static void *take_early(size_t size)
{
	size_t at = early_used;
	size_t whole = (size + 31) & ~(size_t)15;
	if (sizeof early - at < whole)
		abort();
	early_used += whole;
	*(size_t *)(void *)(early + at) = size;
	return early + at + 16;
}

static void count_block(void *block, int64_t sign)
{
	if (shared == NULL || block == NULL)
		return;
	atomic_fetch_add_explicit(&shared->live_blocks, sign, memory_order_relaxed);
	atomic_fetch_add_explicit(&shared->live_bytes, sign * (int64_t)malloc_usable_size(block), memory_order_relaxed);
}

static void *(*next_malloc)(size_t);
static void *(*next_calloc)(size_t, size_t);
static void *(*next_realloc)(void *, size_t);
static void (*next_free)(void *);
static bool is_finding;

static bool find_memory(void)
{
	if (is_finding)
		return false;
	is_finding = true;
	FIND(next_calloc, "calloc");
	FIND(next_realloc, "realloc");
	FIND(next_free, "free");
	FIND(next_malloc, "malloc");
	is_finding = false;
	return true;
}

void *malloc(size_t size)
{
	if (next_malloc == NULL && !find_memory())
		return take_early(size);
	if (fails(CALL_MALLOC))
		return NULL;
	void *block = next_malloc(size);
	count_block(block, 1);
	return block;
}

void *calloc(size_t count, size_t size)
{
	size_t whole;
	if (next_malloc == NULL && !find_memory())
		return __builtin_mul_overflow(count, size, &whole) ? NULL : take_early(whole); /* static: zero already */
	if (fails(CALL_CALLOC))
		return NULL;
	void *block = next_calloc(count, size);
	count_block(block, 1);
	return block;
}

void *realloc(void *block, size_t size)
{
	if (is_early(block)) {
		void *copy = malloc(size);
		size_t had = *(size_t *)(void *)((char *)block - 16);
		if (copy != NULL)
			memcpy(copy, block, had < size ? had : size);
		return copy;
	}
	if (next_malloc == NULL && !find_memory())
		return take_early(size);
	if (fails(CALL_REALLOC))
		return NULL;
	count_block(block, -1);
	void *moved = next_realloc(block, size);
	count_block(moved != NULL ? moved : size > 0 ? block : NULL, 1);
	return moved;
}

void free(void *block)
{
	if (block == NULL || is_early(block))
		return;
	count_block(block, -1);
	if (next_free != NULL || find_memory())
		next_free(block);
}

/* ---- system calls --------------------------------------------------------------------------------------------------- */

INTERPOSE(int, accept4, CALL_ACCEPT, (int fd, struct sockaddr *address, socklen_t *length, int flags),
          (fd, address, length, flags))
INTERPOSE(int, socket, CALL_SOCKET, (int domain, int type, int protocol), (domain, type, protocol))
INTERPOSE(int, connect, CALL_CONNECT, (int fd, const struct sockaddr *address, socklen_t length), (fd, address, length))
INTERPOSE(ssize_t, send, CALL_SEND, (int fd, const void *bytes, size_t length, int flags), (fd, bytes, length, flags))
INTERPOSE(ssize_t, sendmsg, CALL_SEND, (int fd, const struct msghdr *message, int flags), (fd, message, flags))
INTERPOSE(ssize_t, sendto, CALL_SEND,
          (int fd, const void *bytes, size_t length, int flags, const struct sockaddr *to, socklen_t to_length),
          (fd, bytes, length, flags, to, to_length))
INTERPOSE(ssize_t, recv, CALL_RECEIVE, (int fd, void *bytes, size_t length, int flags), (fd, bytes, length, flags))
INTERPOSE(ssize_t, recvmsg, CALL_RECEIVE, (int fd, struct msghdr *message, int flags), (fd, message, flags))
INTERPOSE(ssize_t, recvfrom, CALL_RECEIVE,
          (int fd, void *bytes, size_t length, int flags, struct sockaddr *from, socklen_t *from_length),
          (fd, bytes, length, flags, from, from_length))
INTERPOSE(ssize_t, __recv_chk, CALL_RECEIVE, (int fd, void *bytes, size_t length, size_t room, int flags),
          (fd, bytes, length, room, flags))
INTERPOSE(ssize_t, __recvfrom_chk, CALL_RECEIVE,
          (int fd, void *bytes, size_t length, size_t room, int flags, struct sockaddr *from, socklen_t *from_length),
          (fd, bytes, length, room, flags, from, from_length))
INTERPOSE(int, poll, CALL_POLL, (struct pollfd *fds, nfds_t count, int timeout_ms), (fds, count, timeout_ms))
INTERPOSE(int, ppoll, CALL_POLL,
          (struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask),
          (fds, count, timeout, mask))
INTERPOSE(int, __ppoll_chk, CALL_POLL,
          (struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask, size_t room),
          (fds, count, timeout, mask, room))
INTERPOSE(int, eventfd, CALL_EVENTFD, (unsigned first, int flags), (first, flags))
INTERPOSE(int, pipe2, CALL_PIPE, (int ends[2], int flags), (ends, flags))
INTERPOSE(ssize_t, splice, CALL_SPLICE,
          (int from, off64_t *from_at, int to, off64_t *to_at, size_t length, unsigned flags),
          (from, from_at, to, to_at, length, flags))
INTERPOSE(int, setsockopt, CALL_OPTION, (int fd, int level, int name, const void *value, socklen_t length),
          (fd, level, name, value, length))
INTERPOSE(int, getsockopt, CALL_OPTION, (int fd, int level, int name, void *value, socklen_t *length),
          (fd, level, name, value, length))
INTERPOSE(int, bind, CALL_BIND, (int fd, const struct sockaddr *address, socklen_t length), (fd, address, length))
INTERPOSE(int, listen, CALL_BIND, (int fd, int backlog), (fd, backlog))
INTERPOSE(ssize_t, getrandom, CALL_RANDOM, (void *bytes, size_t length, unsigned flags), (bytes, length, flags))

/* An eventfd has no disk that could be full or broken: all that a reader or writer of it may meet is a signal. */
static bool is_eventfd(int fd)
{
	struct stat status;
	return fstat(fd, &status) == 0 && (status.st_mode & S_IFMT) == 0;
}

ssize_t read(int fd, void *bytes, size_t length)
{
	static ssize_t (*next)(int, void *, size_t);
	FIND(next, "read");
	return fails(is_eventfd(fd) ? CALL_WAKE : CALL_READ) ? -1 : next(fd, bytes, length);
}

ssize_t write(int fd, const void *bytes, size_t length)
{
	static ssize_t (*next)(int, const void *, size_t);
	FIND(next, "write");
	return fails(is_eventfd(fd) ? CALL_WAKE : CALL_WRITE) ? -1 : next(fd, bytes, length);
}

int open(const char *path, int flags, ...)
{
	static int (*next)(const char *, int, ...);
	FIND(next, "open");
	va_list more;
	va_start(more, flags);
	mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(more, mode_t) : 0;
	va_end(more);
	return fails(CALL_OPEN) ? -1 : next(path, flags, mode);
}

/* Its own opening of the file goes past open(). */
FILE *fopen(const char *path, const char *mode)
{
	static FILE *(*next)(const char *, const char *);
	FIND(next, "fopen");
	return fails(CALL_OPEN) ? NULL : next(path, mode);
}

int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **out)
{
	static int (*next)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
	FIND(next, "getaddrinfo");
	int error = fault(CALL_NAMES);
	if (error == HANG && hints != NULL && (hints->ai_flags & AI_NUMERICHOST) != 0)
		error = 0; /* that asks no service */
	while (error == HANG) {
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
		error = atomic_load(&shared->always[CALL_NAMES]);
	}
	if (error == 0) {
		asks_for_names = true;
		error = next(host, service, hints, out);
		asks_for_names = false;
		return error;
	}
	errno = error;
	return error == EAGAIN ? EAI_AGAIN : error == ENOMEM ? EAI_MEMORY : EAI_SYSTEM;
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *), void *argument)
{
	static int (*next)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
	FIND(next, "pthread_create");
	int error = fault(CALL_THREAD);
	return error != 0 ? error : next(thread, attributes, body, argument);
}

/* ---- the wall clock ------------------------------------------------------------------------------------------------- */

static void shift(struct timespec *now)
{
	int64_t shift_ns = shared == NULL ? 0 : atomic_load(&shared->wall_shift_ns);
	if (shift_ns == 0)
		return;
	int64_t ns = (int64_t)now->tv_nsec + shift_ns % 1000000000;
	now->tv_sec += shift_ns / 1000000000 + (ns >= 1000000000) - (ns < 0);
	now->tv_nsec = (long)((ns + 1000000000) % 1000000000);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
	static int (*next)(clockid_t, struct timespec *);
	FIND(next, "clock_gettime");
	int result = next(clock, now);
	if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
		shift(now);
	return result;
}

int gettimeofday(struct timeval *now, void *zone)
{
	struct timespec at;
	(void)zone;
	clock_gettime(CLOCK_REALTIME, &at);
	now->tv_sec = at.tv_sec;
	now->tv_usec = at.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *out)
{
	struct timespec at;
	clock_gettime(CLOCK_REALTIME, &at);
	if (out != NULL)
		*out = at.tv_sec;
	return at.tv_sec;
}
