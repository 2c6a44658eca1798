//! Bytes given away across the line.

use std::ffi::c_void;

use rollout_plugin_abi::Buf;

/// Gives bytes away, with the function that frees them.
pub(crate) fn give(bytes: Vec<u8>) -> Buf {
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
