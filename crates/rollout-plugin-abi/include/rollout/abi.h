/* The C ABI between a rollout worker and its cdylib plugins, version 1.
 *
 * A plugin is a shared library that exports one function, rollout_plugin_v1, which returns the
 * plugin's descriptor. C11, no dependencies; build with -I to the directory above this one.
 *
 * The rules:
 *
 * - A RolloutSlice is borrowed until the function it was passed to returns: copy what you keep. The
 *   slices of a descriptor live for ever, as the library is never unloaded.
 * - A RolloutBuf is given away. Whoever gets it calls its `release` once, so memory goes back to the
 *   allocator that it came from. The worker zeroes a buffer before it passes its address: leave it
 *   so, and it is empty. It releases the buffer whatever the function returned.
 * - Texts are UTF-8 without a terminating zero; values are JSON.
 * - An instance is created, called, shut down and destroyed on one thread, one call at a time. With
 *   ROLLOUT_THREAD_SAFE its calls come on several threads, several at a time, all of them between
 *   `create` and `shutdown`. A library may have more than one instance: keep state in the instance.
 * - Nothing unwinds or jumps across the line: no C++ exception, no longjmp.
 * - A plugin shares the worker's process. Don't exit, don't install signal handlers, don't change
 *   the working directory, the environment or the locale. A call that never returns can't be ended.
 * - Within a major version fields are only appended. A struct's `struct_size` says how many bytes of
 *   it there are; a field beyond is not read.
 */
#ifndef ROLLOUT_ABI_H
#define ROLLOUT_ABI_H

#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The first field of a descriptor: "rolloutp". */
#define ROLLOUT_MAGIC UINT64_C(0x726f6c6c6f757470)
/* The version that must match. */
#define ROLLOUT_ABI_MAJOR 1
/* Grows when fields are appended. */
#define ROLLOUT_ABI_MINOR 1

/* A flag of a descriptor: an instance may be called from several threads at a time. */
#define ROLLOUT_THREAD_SAFE 1

/* What a function returns. */
#define ROLLOUT_OK 0             /* Done. */
#define ROLLOUT_USER_ERROR 1     /* The plugin's own error. */
#define ROLLOUT_BAD_PARAMS 2     /* The method can't use these parameters. */
#define ROLLOUT_UNKNOWN_METHOD 3 /* There is no such method. */
#define ROLLOUT_CANCELLED 4      /* Given up because the call was cancelled. */
#define ROLLOUT_DEADLINE 5       /* Given up because the deadline passed. */
#define ROLLOUT_BUSY 6           /* The plugin takes no call now. */
#define ROLLOUT_PANIC 7          /* The instance is broken: it is destroyed and made anew. */

/* How much a log record matters. */
#define ROLLOUT_LEVEL_TRACE 0 /* Detail for whoever debugs the plugin. */
#define ROLLOUT_LEVEL_DEBUG 1 /* Detail for whoever debugs a run. */
#define ROLLOUT_LEVEL_INFO 2  /* The normal course. */
#define ROLLOUT_LEVEL_WARN 3  /* Worth a look. */
#define ROLLOUT_LEVEL_ERROR 4 /* Something failed. */

/* Borrowed bytes. `ptr` may be null when `len` is 0. */
typedef struct RolloutSlice {
    const uint8_t *ptr;
    uint64_t len;
} RolloutSlice;

/* Owned bytes, given away with the function that frees them. */
typedef struct RolloutBuf {
    uint8_t *ptr;
    uint64_t len;
    void *owner;                                /* The giver's own note, such as a capacity. */
    void (*release)(struct RolloutBuf *buffer); /* Null when there is nothing to free. */
} RolloutBuf;

/* What a call brings back. */
typedef struct RolloutReply {
    uint64_t struct_size; /* In bytes; set by the worker. */
    RolloutBuf result;    /* With ROLLOUT_OK the result as JSON, which must not be left empty; else
                             the error as JSON: {"message":"...","traceback":"..."}, the traceback
                             optional. */
    RolloutBuf payload;   /* With ROLLOUT_OK the bytes beside the result; may be left empty. */
} RolloutReply;

/* One call. */
typedef struct RolloutCall {
    uint64_t struct_size;      /* In bytes; set by the worker. */
    uint64_t call_id;          /* Unique within the instance. */
    RolloutSlice method;       /* The method's name. */
    RolloutSlice params;       /* The parameters, as JSON. */
    RolloutSlice payload;      /* The bytes beside them. */
    uint64_t deadline_mono_ns; /* On the system's monotonic clock, in nanoseconds; 0 means none. */
    const uint32_t *cancelled; /* Written by another thread: read it with rollout_cancelled. */
} RolloutCall;

/* What the worker offers to an instance. It lives until `destroy` has returned; its functions may be
 * called from any thread. */
typedef struct RolloutHost {
    uint64_t struct_size; /* In bytes; set by the worker. */
    void *ctx;            /* The first argument of every function below. */
    /* Logs a message; `target` names the part of the plugin that speaks. */
    void (*log)(void *ctx, uint32_t level, RolloutSlice target, RolloutSlice message);
    /* Since 1.1, while the call lasts: says that it is not stuck. */
    void (*progress)(void *ctx, uint64_t call_id);
    /* Since 1.1, while the call lasts: sends a part of what it brings back, a result as JSON and the
     * bytes beside it, before its reply. Always takes both buffers, and waits while the caller is too
     * far behind. ROLLOUT_OK; ROLLOUT_CANCELLED when nobody waits for the call any more or it is not
     * under way; ROLLOUT_BAD_PARAMS when the result is not JSON or the part is too large. */
    int32_t (*part)(void *ctx, uint64_t call_id, RolloutBuf result, RolloutBuf payload);
} RolloutHost;

/* Where the answers to a batch go, while `call_batch` runs. */
typedef struct RolloutSink {
    uint64_t struct_size; /* In bytes; set by the worker. */
    void *ctx;            /* The first argument of the function below. */
    /* Answers the call at `index`: a code, and what a RolloutReply holds. Always takes both buffers,
     * from any thread. ROLLOUT_OK; ROLLOUT_CANCELLED when nobody waits for the batch any more;
     * ROLLOUT_BAD_PARAMS when there is no such call or it has had its answer. */
    int32_t (*item)(void *ctx, uint64_t index, int32_t code, RolloutBuf result,
                    RolloutBuf payload);
} RolloutSink;

/* A plugin's descriptor. No function but call_batch may be null. */
typedef struct RolloutPlugin {
    uint64_t magic;            /* ROLLOUT_MAGIC. */
    uint16_t abi_major;        /* ROLLOUT_ABI_MAJOR. */
    uint16_t abi_minor;        /* ROLLOUT_ABI_MINOR. */
    uint32_t struct_size;      /* sizeof(RolloutPlugin). */
    uint64_t flags;            /* ROLLOUT_THREAD_SAFE, or 0. */
    RolloutSlice name;         /* As the manifest has it. */
    RolloutSlice version;      /* As the manifest has it. */
    RolloutSlice methods_json; /* [{"name":"...","doc":"..."},...], the doc optional. */
    /* Makes an instance from the manifest's [config], a JSON object: writes it to `*instance`, where
     * null is fine, or else the error to `*error`. Also called to replace an instance that
     * returned ROLLOUT_PANIC. */
    int32_t (*create)(const RolloutHost *host, RolloutSlice config, void **instance,
                      RolloutBuf *error);
    /* Answers a call. */
    int32_t (*call)(void *instance, const RolloutCall *call, RolloutReply *reply);
    /* Prepares the end, until a deadline on the monotonic clock, in nanoseconds. */
    int32_t (*shutdown)(void *instance, uint64_t deadline_mono_ns, RolloutBuf *error);
    /* Frees the instance. Always the last call with it. */
    void (*destroy)(void *instance);
    /* Since 1.1, optional: answers `n` calls of one method through the sink. ROLLOUT_OK when each has
     * had its answer; else the code stands for those that have had none. Where it is null the calls
     * are made one after the other. */
    int32_t (*call_batch)(void *instance, const RolloutCall *const *calls, uint64_t n,
                          const RolloutSink *sink);
} RolloutPlugin;

/* Define this one; its name carries the major version. The descriptor lives for ever. */
__attribute__((visibility("default"))) const RolloutPlugin *rollout_plugin_v1(void);

/* A RolloutSlice over a string literal, as an initializer. */
#define ROLLOUT_TEXT(literal) { (const uint8_t *)("" literal), sizeof(literal) - 1 }

/* Whether a slice holds this text. */
static inline int rollout_is(RolloutSlice slice, const char *text) {
    return slice.len == strlen(text) && (slice.len == 0 || memcmp(slice.ptr, text, slice.len) == 0);
}

/* Whether nobody waits for the answer any more: the call was given up or its deadline passed. */
static inline int rollout_cancelled(const RolloutCall *call) {
    return __atomic_load_n(call->cancelled, __ATOMIC_ACQUIRE) != 0;
}

#ifdef __cplusplus
}
#endif

#endif
