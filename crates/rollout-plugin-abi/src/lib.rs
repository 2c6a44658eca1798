//! The C ABI between a rollout worker (the host) and its cdylib plugins, version 1: `repr(C)` types
//! and constants, in Rust, and in `include/rollout/abi.h` the same in C, which a test compares with
//! these. No dependencies, no behaviour: `rollout-plugin-sdk` makes plugins out of it,
//! `rollout-plugin-host` calls them.
//!
//! A plugin exports one function, [`SYMBOL`], of type [`Entry`], which returns its [`RolloutPlugin`]:
//! a descriptor that lives for ever, as the library is never unloaded.
//!
//! # Rules
//!
//! - Only fixed-width integers, pointers and function pointers cross the line: no `bool`, no `enum`.
//!   Function pointers are `Option` here because that is how Rust spells C's nullable pointer; only
//!   [`call_batch`](RolloutPlugin::call_batch) may be null.
//! - [`ABI_MAJOR`] must match. Within a major version fields are only appended, and a field is read
//!   only if its struct's `struct_size` covers it.
//! - A [`Slice`] is borrowed until the call it came with returns. A [`Buf`] is owned by its receiver,
//!   who releases it once through its own `release`, so allocators never mix. The host zeroes a
//!   `Buf` before it passes its address, and releases it whatever the code returned.
//! - All functions return one of the codes below ([`OK`] to [`PANIC`]). Nothing unwinds across the
//!   line. Texts are UTF-8, values JSON.
//! - An instance is created, called, shut down and destroyed on one thread, one call at a time. With
//!   [`THREAD_SAFE`] its calls come on several threads, several at a time, all of them between
//!   `create` and `shutdown`.
//! - The memory of a [`Call`] or a [`Sink`] lives until the call returns, even if nobody waits for
//!   it any more.
//!   [`Host`] lives until `destroy` has returned; its functions may be called from any thread.

use core::ffi::{CStr, c_void};
use core::sync::atomic::AtomicU32;

/// The name of the one exported function.
pub const SYMBOL: &CStr = c"rollout_plugin_v1";
/// The first field of a descriptor.
pub const MAGIC: u64 = u64::from_be_bytes(*b"rolloutp");
/// The version that must match.
pub const ABI_MAJOR: u16 = 1;
/// Grows when fields are appended.
pub const ABI_MINOR: u16 = 1;

/// A flag of [`RolloutPlugin::flags`]: an instance may be called from several threads at a time.
pub const THREAD_SAFE: u64 = 1;

/// Done.
pub const OK: i32 = 0;
/// The plugin's own code reports an error.
pub const USER_ERROR: i32 = 1;
/// The method can't use these parameters.
pub const BAD_PARAMS: i32 = 2;
/// There is no such method.
pub const UNKNOWN_METHOD: i32 = 3;
/// The call was given up because it was cancelled.
pub const CANCELLED: i32 = 4;
/// The call was given up because its deadline passed.
pub const DEADLINE: i32 = 5;
/// The plugin takes no call now.
pub const BUSY: i32 = 6;
/// The plugin's code panicked; the host destroys the instance and creates a new one.
pub const PANIC: i32 = 7;

/// Log levels for [`Host::log`], from `TRACE` (0) to `ERROR` (4).
pub mod level {
    /// Detail for whoever debugs the plugin.
    pub const TRACE: u32 = 0;
    /// Detail for whoever debugs a run.
    pub const DEBUG: u32 = 1;
    /// The normal course.
    pub const INFO: u32 = 2;
    /// Worth a look.
    pub const WARN: u32 = 3;
    /// Something failed.
    pub const ERROR: u32 = 4;
}

/// Borrowed bytes. `ptr` may be null when `len` is 0.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Slice {
    /// The first byte.
    pub ptr: *const u8,
    /// How many.
    pub len: u64,
}

impl Slice {
    /// The slice over `bytes`.
    #[must_use]
    pub const fn of(bytes: &[u8]) -> Self {
        Self { ptr: bytes.as_ptr(), len: bytes.len() as u64 }
    }

    /// The bytes; empty when `ptr` is null.
    ///
    /// # Safety
    /// `ptr` is null, or points to `len` readable bytes which nobody writes during `'a`.
    #[must_use]
    pub const unsafe fn bytes<'a>(self) -> &'a [u8] {
        if self.ptr.is_null() {
            return &[];
        }
        // SAFETY: the caller's promise; the library and the worker share an address space, so `len`
        // fits `usize`.
        unsafe { core::slice::from_raw_parts(self.ptr, self.len as usize) }
    }
}

/// Owned bytes, given away with the function that frees them.
#[repr(C)]
#[derive(Debug)]
pub struct Buf {
    /// The first byte.
    pub ptr: *mut u8,
    /// How many.
    pub len: u64,
    /// The giver's own note, such as a capacity.
    pub owner: *mut c_void,
    /// Frees the bytes; null when there is nothing to free.
    pub release: Option<ReleaseFn>,
}

impl Buf {
    /// No bytes, nothing to free: all zero.
    pub const EMPTY: Self =
        Self { ptr: core::ptr::null_mut(), len: 0, owner: core::ptr::null_mut(), release: None };
}

/// What a call brings back.
#[repr(C)]
#[derive(Debug)]
pub struct Reply {
    /// The size of this struct, in bytes.
    pub struct_size: u64,
    /// With [`OK`] the result as JSON, else the error as JSON: `{"message":…,"traceback":…}`, the
    /// latter optional.
    pub result: Buf,
    /// With [`OK`] the bytes beside the result; may be left empty.
    pub payload: Buf,
}

impl Reply {
    /// A reply with nothing in it yet.
    pub const EMPTY: Self =
        Self { struct_size: size_of::<Self>() as u64, result: Buf::EMPTY, payload: Buf::EMPTY };
}

/// One call.
#[repr(C)]
#[derive(Debug)]
pub struct Call {
    /// The size of this struct, in bytes.
    pub struct_size: u64,
    /// Unique within the instance.
    pub call_id: u64,
    /// The method's name.
    pub method: Slice,
    /// The parameters, as JSON.
    pub params: Slice,
    /// The bytes beside them.
    pub payload: Slice,
    /// The deadline on the system's monotonic clock, in nanoseconds; 0 means none.
    pub deadline_mono_ns: u64,
    /// Becomes non-zero when nobody waits for the answer any more.
    pub cancelled: *const AtomicU32,
}

/// What the host offers to an instance.
#[repr(C)]
#[derive(Debug)]
pub struct Host {
    /// The size of this struct, in bytes.
    pub struct_size: u64,
    /// The first argument of every function below.
    pub ctx: *mut c_void,
    /// Logs a message.
    pub log: Option<LogFn>,
    /// Says that a call is not stuck. Since 1.1.
    pub progress: Option<ProgressFn>,
    /// Sends a part of what a call brings back, before its reply. Since 1.1.
    pub part: Option<PartFn>,
}

/// Where the answers to a batch go.
#[repr(C)]
#[derive(Debug)]
pub struct Sink {
    /// The size of this struct, in bytes.
    pub struct_size: u64,
    /// The first argument of the function below.
    pub ctx: *mut c_void,
    /// Answers one item.
    pub item: Option<ItemFn>,
}

/// A plugin's descriptor.
#[repr(C)]
#[derive(Debug)]
pub struct RolloutPlugin {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`ABI_MAJOR`] of the plugin.
    pub abi_major: u16,
    /// [`ABI_MINOR`] of the plugin.
    pub abi_minor: u16,
    /// The size of this struct as the plugin knows it, in bytes.
    pub struct_size: u32,
    /// [`THREAD_SAFE`], or 0. A host ignores flags that it does not know.
    pub flags: u64,
    /// The plugin's name, as its manifest has it.
    pub name: Slice,
    /// The plugin's version, as its manifest has it.
    pub version: Slice,
    /// The methods as JSON: `[{"name":…,"doc":…},…]`.
    pub methods_json: Slice,
    /// Makes an instance.
    pub create: Option<CreateFn>,
    /// Answers a call.
    pub call: Option<CallFn>,
    /// Prepares the end.
    pub shutdown: Option<ShutdownFn>,
    /// Frees the instance. Always the last call with it.
    pub destroy: Option<DestroyFn>,
    /// Answers several calls at once. Optional; without it they are made one after the other. Since
    /// 1.1.
    pub call_batch: Option<CallBatchFn>,
}

impl RolloutPlugin {
    /// The size of version 1.0, which ends before `call_batch`.
    pub const SIZE_1_0: usize = core::mem::offset_of!(Self, call_batch);
}

/// From the host and the manifest's `[config]` (JSON): where to put the instance, which may be null,
/// or else the error as JSON.
pub type CreateFn = unsafe extern "C" fn(*const Host, Slice, *mut *mut c_void, *mut Buf) -> i32;
/// With the instance and a call: where to put the reply.
pub type CallFn = unsafe extern "C" fn(*mut c_void, *const Call, *mut Reply) -> i32;
/// With the instance and a deadline on the monotonic clock, in nanoseconds: where to put the error as
/// JSON.
pub type ShutdownFn = unsafe extern "C" fn(*mut c_void, u64, *mut Buf) -> i32;
/// With the instance.
pub type DestroyFn = unsafe extern "C" fn(*mut c_void);
/// With the context, a level, a target and a message.
pub type LogFn = unsafe extern "C" fn(*mut c_void, u32, Slice, Slice);
/// With the instance, pointers to so many calls, their number, and where the answers go. All calls
/// are of one method and share a deadline. Returns [`OK`] when every item has had its answer; else
/// the code stands for those that have had none.
pub type CallBatchFn =
    unsafe extern "C" fn(*mut c_void, *const *const Call, u64, *const Sink) -> i32;
/// With the sink's context, the place of a call in the batch, a code, and what a [`Reply`] holds.
/// Always takes both buffers, from any thread. Returns [`OK`]; [`CANCELLED`] when nobody waits for
/// the batch any more; [`BAD_PARAMS`] when there is no such item, or it has had its answer.
pub type ItemFn = unsafe extern "C" fn(*mut c_void, u64, i32, Buf, Buf) -> i32;
/// With the context and the call's id. From any thread while the call lasts.
pub type ProgressFn = unsafe extern "C" fn(*mut c_void, u64);
/// With the context, the call's id, and a result as JSON with the bytes beside it. Always takes both
/// buffers, from any thread while the call lasts, and waits while its caller is too far behind.
/// Returns [`OK`]; [`CANCELLED`] when nobody waits for the call any more, or it is not under way;
/// [`BAD_PARAMS`] when the result is not JSON or the part is larger than the host takes.
pub type PartFn = unsafe extern "C" fn(*mut c_void, u64, Buf, Buf) -> i32;
/// With a buffer: frees what it holds.
pub type ReleaseFn = unsafe extern "C" fn(*mut Buf);

// SAFETY: a descriptor is immutable and holds only pointers to immutable statics and to functions.
unsafe impl Sync for RolloutPlugin {}
// SAFETY: as above; it belongs to no thread.
unsafe impl Send for RolloutPlugin {}

/// The type of the exported function.
pub type Entry = unsafe extern "C" fn() -> *const RolloutPlugin;

#[cfg(test)]
mod tests {
    use core::mem::offset_of;

    use super::*;

    #[test]
    fn the_layout_is_the_same_on_every_64_bit_system() {
        assert_eq!(size_of::<Slice>(), 16);
        assert_eq!(size_of::<Buf>(), 32);
        assert_eq!(size_of::<Reply>(), 72);
        assert_eq!(size_of::<Call>(), 80);
        assert_eq!(size_of::<Host>(), 40);
        assert_eq!(size_of::<Sink>(), 24);
        assert_eq!((RolloutPlugin::SIZE_1_0, size_of::<RolloutPlugin>()), (104, 112));
        assert_eq!(offset_of!(RolloutPlugin, struct_size), 12);
        assert_eq!(offset_of!(RolloutPlugin, methods_json), 56);
        assert_eq!(offset_of!(RolloutPlugin, destroy), 96);
        assert_eq!(offset_of!(Call, deadline_mono_ns), 64);
    }

    #[test]
    fn a_null_slice_is_empty_and_a_slice_reads_back() {
        let null = Slice { ptr: core::ptr::null(), len: 7 };
        // SAFETY: null is allowed, and the literal lives for ever.
        let (none, some) = unsafe { (null.bytes(), Slice::of(b"abc").bytes()) };
        assert_eq!((none, some), (&b""[..], &b"abc"[..]));
    }
}
