/* The smallest useful plugin in plain C: it answers with what it was asked. Build it with
 *
 *     cc -std=c11 -O2 -shared -fPIC -Icrates/rollout-plugin-abi/include -o target/plugins/libc_sample.so plugins/c_sample/c_sample.c
 *
 * from the repository's root; on macOS the library ends in .dylib.
 */
#include <rollout/abi.h>
#include <stdlib.h>

/* What `give` allocated is freed here, by the same allocator. */
static void release(RolloutBuf *buffer) { free(buffer->ptr); }

/* Gives a copy away; whether there was memory for it. */
static int give(RolloutBuf *to, RolloutSlice bytes) {
    if (bytes.len == 0) return 1;
    to->ptr = malloc(bytes.len);
    if (to->ptr == NULL) return 0;
    memcpy(to->ptr, bytes.ptr, bytes.len);
    to->len = bytes.len;
    to->release = release;
    return 1;
}

static int32_t create(const RolloutHost *host, RolloutSlice config, void **instance,
                      RolloutBuf *error) {
    static const RolloutSlice refusal = ROLLOUT_TEXT("{\"message\":\"it has no configuration\"}");
    static const RolloutSlice target = ROLLOUT_TEXT("c_sample");
    static const RolloutSlice ready = ROLLOUT_TEXT("ready");
    if (!rollout_is(config, "{}")) {
        give(error, refusal);
        return ROLLOUT_USER_ERROR;
    }
    (void)instance; /* It keeps nothing between calls, so its instance is null. */
    host->log(host->ctx, ROLLOUT_LEVEL_INFO, target, ready);
    return ROLLOUT_OK;
}

static int32_t call(void *instance, const RolloutCall *call, RolloutReply *reply) {
    (void)instance;
    if (rollout_is(call->method, "echo")) {
        /* The result last: an error must not find a result in its place. */
        int given = give(&reply->payload, call->payload) && give(&reply->result, call->params);
        return given ? ROLLOUT_OK : ROLLOUT_USER_ERROR;
    }
    return ROLLOUT_UNKNOWN_METHOD;
}

static int32_t shutdown_(void *instance, uint64_t deadline_mono_ns, RolloutBuf *error) {
    (void)instance, (void)deadline_mono_ns, (void)error;
    return ROLLOUT_OK;
}

static void destroy(void *instance) { (void)instance; }

static const RolloutPlugin plugin = {
    .magic = ROLLOUT_MAGIC,
    .abi_major = ROLLOUT_ABI_MAJOR,
    .abi_minor = ROLLOUT_ABI_MINOR,
    .struct_size = sizeof(RolloutPlugin),
    .name = ROLLOUT_TEXT("c_sample"),
    .version = ROLLOUT_TEXT("0.1.0"),
    .methods_json = ROLLOUT_TEXT(
        "[{\"name\":\"echo\",\"doc\":\"the params and the payload, unchanged\"}]"),
    .create = create,
    .call = call,
    .shutdown = shutdown_,
    .destroy = destroy,
};

const RolloutPlugin *rollout_plugin_v1(void) { return &plugin; }
