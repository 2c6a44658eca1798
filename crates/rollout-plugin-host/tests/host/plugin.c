/* A plugin in plain C, right and wrong: each definition breaks one rule. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct { const uint8_t *ptr; uint64_t len; } Slice;
typedef struct Buf { uint8_t *ptr; uint64_t len; void *owner; void (*release)(struct Buf *); } Buf;
typedef struct { uint64_t struct_size; Buf result, payload; } Reply;
typedef struct {
    uint64_t struct_size, call_id;
    Slice method, params, payload;
    uint64_t deadline_mono_ns;
    const uint32_t *cancelled;
} Call;
typedef struct {
    uint64_t magic;
    uint16_t abi_major, abi_minor;
    uint32_t struct_size;
    uint64_t flags;
    Slice name, version, methods_json;
    int32_t (*create)(const void *, Slice, void **, Buf *);
    int32_t (*call)(void *, const Call *, Reply *);
    int32_t (*shutdown)(void *, uint64_t, Buf *);
    void (*destroy)(void *);
} Plugin;

typedef struct {
    uint64_t struct_size;
    void *ctx;
    void (*log)(void *, uint32_t, Slice, Slice);
    void (*progress)(void *, uint64_t);
    int32_t (*part)(void *, uint64_t, Buf, Buf);
} Host;

static const Host *its_host;
static unsigned released;

static void release(Buf *buf) {
    released++;
    free(buf->ptr);
}

static void give(Buf *to, const void *bytes, uint64_t len) {
    to->ptr = malloc(len);
    memcpy(to->ptr, bytes, len);
    to->len = len;
    to->release = release;
}

#ifdef UNRESOLVED
void nowhere_to_be_found(void);
#endif

static int32_t create(const void *host, Slice config, void **instance, Buf *error) {
#ifdef UNRESOLVED
    nowhere_to_be_found();
#endif
    its_host = host;
    (void)config, (void)instance, (void)error;
    return 0;
}

static int is(Slice method, const char *name) {
    return method.len == strlen(name) && memcmp(method.ptr, name, method.len) == 0;
}

int32_t call(void *instance, const Call *call, Reply *reply) {
    (void)instance;
    if (is(call->method, "echo")) {
        give(&reply->result, call->params.ptr, call->params.len);
        return 0;
    }
    if (is(call->method, "fail")) {
        static const char error[] = "{\"message\":\"on purpose\",\"traceback\":\"plugin.c\"}";
        give(&reply->result, error, sizeof error - 1);
        return 1;
    }
    if (is(call->method, "garbage")) {
        give(&reply->result, "{", 1);
        return 0;
    }
    if (is(call->method, "payload")) {
        give(&reply->result, call->payload.ptr, call->payload.len);
        return 0;
    }
    if (is(call->method, "nap")) {
        usleep(20000);
        give(&reply->result, "1", 1);
        return 0;
    }
    if (is(call->method, "code")) {
        give(&reply->result, "{}", 2);
        return 42;
    }
    /* The code of a part with the payload as its result: of this call, or of the one before. */
    if (is(call->method, "part") || is(call->method, "late_part")) {
        Buf result = {0}, bytes = {0};
        give(&result, call->payload.ptr, call->payload.len);
        give(&bytes, "x", 1);
        uint64_t id = is(call->method, "part") ? call->call_id : call->call_id - 1;
        uint8_t digit = '0' + its_host->part(its_host->ctx, id, result, bytes);
        its_host->progress(its_host->ctx, id);
        give(&reply->result, &digit, 1);
        return 0;
    }
    if (is(call->method, "released")) {
        char digits[12];
        give(&reply->result, digits, snprintf(digits, sizeof digits, "%u", released));
        return 0;
    }
    return 3;
}

static int32_t shutdown_(void *instance, uint64_t deadline, Buf *error) {
    (void)instance, (void)deadline, (void)error;
    return 0;
}

static void destroy(void *instance) { (void)instance; }

#define TEXT(text) { (const uint8_t *)text, sizeof text - 1 }

static const Plugin plugin = {
#ifdef WRONG_MAGIC
    .magic = 1,
#else
    .magic = 0x726f6c6c6f757470,
#endif
#ifdef WRONG_MAJOR
    .abi_major = 2,
    .abi_minor = 7,
#else
    .abi_major = 1,
#endif
#ifdef SHORT
    .struct_size = sizeof(Plugin) - 8,
#else
    .struct_size = sizeof(Plugin),
#endif
#ifdef OTHER_NAME
    .name = TEXT("other"),
#else
    .name = TEXT("c_plugin"),
#endif
    .version = TEXT("0.1.0"),
#ifdef BAD_METHODS
    .methods_json = TEXT("[{}]"),
#else
    .methods_json = TEXT("[{\"name\":\"echo\"},{\"name\":\"fail\"},{\"name\":\"garbage\"},"
                         "{\"name\":\"nap\"},{\"name\":\"part\"},{\"name\":\"late_part\"},"
                         "{\"name\":\"payload\"},{\"name\":\"code\"},{\"name\":\"released\"}]"),
#endif
    .create = create,
#ifndef NULL_FUNCTION
    .call = call,
#endif
    .shutdown = shutdown_,
    .destroy = destroy,
};

#ifdef NO_SYMBOL
const Plugin *some_other_symbol(void) { return &plugin; }
#else
const Plugin *rollout_plugin_v1(void) {
#ifdef NULL_DESCRIPTOR
    return (void)plugin, NULL;
#else
    return &plugin;
#endif
}
#endif
