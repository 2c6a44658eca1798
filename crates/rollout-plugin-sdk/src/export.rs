//! The entries of the C ABI, made from a [`Plugin`] or a [`ThreadSafePlugin`]; used by
//! [`export_plugin!`](crate::export_plugin) and by [`testing`](crate::testing) alone.

use std::ffi::c_void;
use std::slice;
use std::sync::OnceLock;

pub use rollout_plugin_abi::RolloutPlugin;
use rollout_plugin_abi::{self as abi, Buf, Slice};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::buf::give;
use crate::panic::contain;
use crate::{Answers, Call, Error, Host, Method, Plugin, Reply, ThreadSafePlugin};

/// Exports a type that implements [`Plugin`](crate::Plugin) as the plugin of this `cdylib`, under the
/// package's name and version. With `thread_safe` before it, a type that implements
/// [`ThreadSafePlugin`](crate::ThreadSafePlugin). At most one a library.
#[macro_export]
macro_rules! export_plugin {
    (thread_safe $plugin:ty) => {
        $crate::export_plugin!(@ $crate::export::Concurrent<$plugin>);
    };
    ($plugin:ty) => {
        $crate::export_plugin!(@ $crate::export::Exclusive<$plugin>);
    };
    (@ $exported:ty) => {
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
                $crate::export::descriptor::<$exported>(
                    &DESCRIPTOR,
                    env!("CARGO_PKG_NAME"),
                    env!("CARGO_PKG_VERSION"),
                )
            }
        };
    };
}

/// What the entries need of a plugin, however it takes its calls.
///
/// # Safety
/// With [`abi::THREAD_SAFE`] among the flags, `call` and `call_batch` must be sound on several threads
/// at a time.
pub unsafe trait Export: Sized + 'static {
    /// The manifest's `[config]`.
    type Config: DeserializeOwned;
    /// The methods.
    const METHODS: &[Method];
    /// The descriptor's flags.
    const FLAGS: u64;

    /// Makes the plugin.
    ///
    /// # Errors
    /// The plugin's.
    fn create(config: Self::Config, host: Host) -> Result<Self, Error>;

    /// Answers a call.
    ///
    /// # Errors
    /// The plugin's.
    ///
    /// # Safety
    /// `this` is live, and nobody else uses it unless the flags allow it.
    unsafe fn call(this: *mut Self, call: &Call<'_>) -> Result<Reply, Error>;

    /// Answers a batch.
    ///
    /// # Safety
    /// As for [`call`](Self::call).
    unsafe fn call_batch(this: *mut Self, calls: &[Call<'_>], answers: &Answers<'_>);

    /// Prepares the end.
    ///
    /// # Errors
    /// The plugin's.
    ///
    /// # Safety
    /// `this` is live, and nobody else uses it.
    unsafe fn shutdown(this: *mut Self) -> Result<(), Error>;
}

/// A plugin that is called one call at a time.
#[derive(Debug)]
pub struct Exclusive<P>(P);

// SAFETY: without the flag.
unsafe impl<P: Plugin> Export for Exclusive<P> {
    type Config = P::Config;
    const METHODS: &[Method] = P::METHODS;
    const FLAGS: u64 = 0;

    fn create(config: P::Config, host: Host) -> Result<Self, Error> {
        P::create(config, host).map(Self)
    }

    unsafe fn call(this: *mut Self, call: &Call<'_>) -> Result<Reply, Error> {
        // SAFETY: nobody else uses it.
        unsafe { &mut *this }.0.call(call)
    }

    unsafe fn call_batch(this: *mut Self, calls: &[Call<'_>], answers: &Answers<'_>) {
        // SAFETY: nobody else uses it.
        unsafe { &mut *this }.0.call_batch(calls, answers);
    }

    unsafe fn shutdown(this: *mut Self) -> Result<(), Error> {
        // SAFETY: nobody else uses it.
        unsafe { &mut *this }.0.shutdown()
    }
}

/// A plugin that is called from several threads at a time.
#[derive(Debug)]
pub struct Concurrent<P>(P);

// SAFETY: the plugin is `Sync`, and calls share it.
unsafe impl<P: ThreadSafePlugin> Export for Concurrent<P> {
    type Config = P::Config;
    const METHODS: &[Method] = P::METHODS;
    const FLAGS: u64 = abi::THREAD_SAFE;

    fn create(config: P::Config, host: Host) -> Result<Self, Error> {
        P::create(config, host).map(Self)
    }

    unsafe fn call(this: *mut Self, call: &Call<'_>) -> Result<Reply, Error> {
        // SAFETY: all share it.
        unsafe { &*this }.0.call(call)
    }

    unsafe fn call_batch(this: *mut Self, calls: &[Call<'_>], answers: &Answers<'_>) {
        // SAFETY: all share it.
        unsafe { &*this }.0.call_batch(calls, answers);
    }

    unsafe fn shutdown(this: *mut Self) -> Result<(), Error> {
        // SAFETY: all share it.
        unsafe { &*this }.0.shutdown()
    }
}

/// The descriptor of `P`, made at the first call.
#[must_use]
pub fn descriptor<P: Export>(
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
            flags: P::FLAGS,
            name: Slice::of(name.as_bytes()),
            version: Slice::of(version.as_bytes()),
            methods_json: Slice::of(methods.as_bytes()),
            create: Some(create::<P>),
            call: Some(call::<P>),
            shutdown: Some(shutdown::<P>),
            destroy: Some(destroy::<P>),
            call_batch: Some(call_batch::<P>),
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
pub(crate) unsafe extern "C" fn create<P: Export>(
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
pub(crate) unsafe extern "C" fn call<P: Export>(
    instance: *mut c_void,
    call: *const abi::Call,
    reply: *mut abi::Reply,
) -> i32 {
    let done = contain(|| {
        let instance = instance.cast::<Instance<P>>();
        // SAFETY: the caller's promise; the host is shared, and never changes.
        unsafe {
            let call = Call::from_raw(&*call, &(*instance).host)?;
            P::call(&raw mut (*instance).plugin, &call)
        }
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
/// As the ABI has it: `instance` is from `create`, on its thread; `count` pointers to calls and the sink
/// live until this returns.
pub(crate) unsafe extern "C" fn call_batch<P: Export>(
    instance: *mut c_void,
    calls: *const *const abi::Call,
    count: u64,
    sink: *const abi::Sink,
) -> i32 {
    let done = contain(|| {
        let instance = instance.cast::<Instance<P>>();
        // SAFETY: the caller's promise; the host is shared, and never changes.
        unsafe {
            let pointers =
                if count == 0 { &[] } else { slice::from_raw_parts(calls, count as usize) };
            let calls = pointers.iter().map(|call| Call::from_raw(&**call, &(*instance).host));
            let calls = calls.collect::<Result<Vec<_>, _>>()?;
            P::call_batch(&raw mut (*instance).plugin, &calls, &Answers::from_raw(&*sink));
        }
        Ok(())
    });
    done.map_or_else(|failed| failed.code, |()| abi::OK)
}

/// # Safety
/// As the ABI has it: `instance` is from `create`, on its thread; `error` can be written.
pub(crate) unsafe extern "C" fn shutdown<P: Export>(
    instance: *mut c_void,
    _deadline_mono_ns: u64,
    error: *mut Buf,
) -> i32 {
    // SAFETY: the caller's promise.
    match contain(|| unsafe { P::shutdown(&raw mut (*instance.cast::<Instance<P>>()).plugin) }) {
        Ok(()) => abi::OK,
        // SAFETY: the caller's promise.
        Err(failed) => unsafe { report(&failed, error) },
    }
}

/// # Safety
/// As the ABI has it: `instance` is from `create`, on its thread, and not used again.
pub(crate) unsafe extern "C" fn destroy<P: Export>(instance: *mut c_void) {
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
