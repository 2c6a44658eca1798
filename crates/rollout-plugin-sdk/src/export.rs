//! The entries of the C ABI, made from a [`Plugin`]; used by [`export_plugin!`](crate::export_plugin)
//! and by [`testing`](crate::testing) alone.

use std::ffi::c_void;
use std::sync::OnceLock;

pub use rollout_plugin_abi::RolloutPlugin;
use rollout_plugin_abi::{self as abi, Buf, Slice};
use serde_json::json;

use crate::panic::contain;
use crate::{Call, Error, Host, Plugin, Reply};

/// Exports a type that implements [`Plugin`](crate::Plugin) as the plugin of this `cdylib`, under the
/// package's name and version. At most one a library.
#[macro_export]
macro_rules! export_plugin {
    ($plugin:ty) => {
        const _: () = {
            #[cfg(panic = "abort")]
            compile_error!(
                "a plugin is built with panic = \"unwind\": under \"abort\" its first panic would end the worker"
            );

            static DESCRIPTOR: ::std::sync::OnceLock<$crate::export::RolloutPlugin> =
                ::std::sync::OnceLock::new();

            /// The plugin's descriptor.
            #[unsafe(no_mangle)]
            pub extern "C" fn rollout_plugin_v1() -> *const $crate::export::RolloutPlugin {
                $crate::export::descriptor::<$plugin>(
                    &DESCRIPTOR,
                    env!("CARGO_PKG_NAME"),
                    env!("CARGO_PKG_VERSION"),
                )
            }
        };
    };
}

/// The descriptor of `P`, made at the first call.
#[must_use]
pub fn descriptor<P: Plugin>(
    made: &'static OnceLock<RolloutPlugin>,
    name: &'static str,
    version: &'static str,
) -> *const RolloutPlugin {
    made.get_or_init(|| {
        let methods: Vec<_> =
            P::METHODS.iter().map(|m| json!({ "name": m.name, "doc": m.doc })).collect();
        let methods: &'static str = json!(methods).to_string().leak();
        RolloutPlugin {
            magic: abi::MAGIC,
            abi_major: abi::ABI_MAJOR,
            abi_minor: abi::ABI_MINOR,
            struct_size: size_of::<RolloutPlugin>() as u32,
            flags: 0,
            name: Slice::of(name.as_bytes()),
            version: Slice::of(version.as_bytes()),
            methods_json: Slice::of(methods.as_bytes()),
            create: Some(create::<P>),
            call: Some(call::<P>),
            shutdown: Some(shutdown::<P>),
            destroy: Some(destroy::<P>),
        }
    })
}

struct Instance<P> {
    plugin: P,
    host: Host,
}

/// # Safety
/// As the ABI has it: `host` lives until `destroy` has returned, `instance` and `error` can be
/// written.
pub(crate) unsafe extern "C" fn create<P: Plugin>(
    host: *const abi::Host,
    config: Slice,
    instance: *mut *mut c_void,
    error: *mut Buf,
) -> i32 {
    // SAFETY: the caller's promise.
    let (host, config) = unsafe { (Host::from_raw(host), config.bytes()) };
    let made = contain(|| {
        let config = serde_json::from_slice(config)
            .map_err(|error| Error::bad_params(format!("[config]: {error}")))?;
        let plugin = P::create(config, host.clone())?;
        Ok(Box::into_raw(Box::new(Instance { plugin, host: host.clone() })))
    });
    match made {
        Ok(made) => {
            // SAFETY: the caller's promise.
            unsafe { instance.write(made.cast()) };
            abi::OK
        }
        Err(failed) => {
            host.close();
            // SAFETY: the caller's promise.
            unsafe { report(&failed, error) }
        }
    }
}

/// # Safety
/// As the ABI has it: `instance` is from `create`, on its thread; `call` lives until this returns;
/// `reply` can be written.
pub(crate) unsafe extern "C" fn call<P: Plugin>(
    instance: *mut c_void,
    call: *const abi::Call,
    reply: *mut abi::Reply,
) -> i32 {
    let done = contain(|| {
        // SAFETY: the caller's promise.
        let (instance, call) =
            unsafe { (&mut *instance.cast::<Instance<P>>(), Call::from_raw(&*call)?) };
        instance.plugin.call(&call)
    });
    match done {
        Ok(Reply { result, payload }) => {
            // SAFETY: the caller's promise; the fields are in every version of the struct.
            unsafe {
                (&raw mut (*reply).result).write(give(result));
                (&raw mut (*reply).payload).write(give(payload));
            }
            abi::OK
        }
        // SAFETY: the caller's promise.
        Err(failed) => unsafe { report(&failed, &raw mut (*reply).result) },
    }
}

/// # Safety
/// As the ABI has it: `instance` is from `create`, on its thread; `error` can be written.
pub(crate) unsafe extern "C" fn shutdown<P: Plugin>(
    instance: *mut c_void,
    _deadline_mono_ns: u64,
    error: *mut Buf,
) -> i32 {
    // SAFETY: the caller's promise.
    match contain(|| unsafe { &mut *instance.cast::<Instance<P>>() }.plugin.shutdown()) {
        Ok(()) => abi::OK,
        // SAFETY: the caller's promise.
        Err(failed) => unsafe { report(&failed, error) },
    }
}

/// # Safety
/// As the ABI has it: `instance` is from `create`, on its thread, and not used again.
pub(crate) unsafe extern "C" fn destroy<P: Plugin>(instance: *mut c_void) {
    // SAFETY: the caller's promise.
    let instance = unsafe { Box::from_raw(instance.cast::<Instance<P>>()) };
    let host = instance.host.clone();
    let dropped = contain(|| {
        drop(instance);
        Ok(())
    });
    if let Err(panicked) = dropped {
        host.log(crate::Level::Error, module_path!(), &panicked.message);
    }
    host.close();
}

/// # Safety
/// `to` can be written.
unsafe fn report(error: &Error, to: *mut Buf) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { to.write(give(error.to_json())) };
    error.code
}

/// Gives bytes away, with the function that frees them.
fn give(bytes: Vec<u8>) -> Buf {
    if bytes.capacity() == 0 {
        return Buf::EMPTY;
    }
    let (ptr, len, capacity) = bytes.into_raw_parts();
    Buf { ptr, len: len as u64, owner: capacity as *mut c_void, release: Some(release) }
}

/// # Safety
/// `buf` points to what [`give`] made, and is released once.
unsafe extern "C" fn release(buf: *mut Buf) {
    // SAFETY: the caller's promise.
    unsafe {
        let Buf { ptr, len, owner, .. } = buf.replace(Buf::EMPTY);
        drop(Vec::from_raw_parts(ptr, len as usize, owner as usize));
    }
}
