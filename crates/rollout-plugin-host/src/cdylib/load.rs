//! Loading a library: its bytes are checked before any of its code runs, its descriptor before any of
//! its functions is called.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use rollout_plugin_abi::{self as abi, RolloutPlugin};

use crate::call::Confirmed;
use crate::error::Cause;
use crate::manifest::{self, CdylibEntry};
use crate::sidecar::private_dir;

/// A library in memory, whose descriptor keeps the ABI's rules.
pub(super) struct Loaded {
    pub(super) functions: Functions,
    pub(super) confirmed: Confirmed,
    /// Whether an instance may be called from several threads at a time.
    pub(super) thread_safe: bool,
    /// SHA-256 of its bytes, in hex.
    pub(super) digest: String,
}

/// A descriptor's functions, all there but the optional one.
#[derive(Clone, Copy)]
pub(super) struct Functions {
    pub(super) create: abi::CreateFn,
    pub(super) call: abi::CallFn,
    pub(super) shutdown: abi::ShutdownFn,
    pub(super) destroy: abi::DestroyFn,
    pub(super) call_batch: Option<abi::CallBatchFn>,
}

impl Loaded {
    /// Reads, checks and loads the library.
    pub(super) fn open(entry: &CdylibEntry, private: &Path) -> Result<Self, Cause> {
        let path = &entry.path;
        let bytes =
            fs::read(path).map_err(|source| Cause::NotFound { path: path.clone(), source })?;
        let digest = manifest::digest(&bytes);
        let pin = entry.sha256.as_ref();
        if let Some(want) = pin.filter(|want| **want != digest) {
            return Err(Cause::HashMismatch {
                path: path.clone(),
                want: want.clone(),
                got: digest,
            });
        }
        check_header(&bytes, path)?;
        // A pin is good for the bytes that were hashed, not for what the path leads to by now.
        let copy = pin.map(|_| Copy::of(&bytes, private)).transpose().map_err(|source| {
            let dir = private.display();
            let doing = format!("the pinned library is loaded from a copy in {dir}");
            Cause::Spawn { doing, source: source.into() }
        })?;
        drop(bytes);
        let descriptor = open(copy.as_ref().map_or(path, |copy| &copy.0), path)?;
        let functions = functions(&descriptor).ok_or_else(|| bad(path, "a function is null"))?;
        let confirmed = confirmed(&descriptor, path)?;
        let thread_safe = descriptor.flags & abi::THREAD_SAFE != 0;
        Ok(Self { functions, confirmed, thread_safe, digest })
    }
}

fn functions(descriptor: &RolloutPlugin) -> Option<Functions> {
    Some(Functions {
        create: descriptor.create?,
        call: descriptor.call?,
        shutdown: descriptor.shutdown?,
        destroy: descriptor.destroy?,
        call_batch: descriptor.call_batch,
    })
}

/// What the library says of itself.
fn confirmed(descriptor: &RolloutPlugin, path: &Path) -> Result<Confirmed, Cause> {
    let RolloutPlugin { name, version, methods_json, .. } = descriptor;
    // SAFETY: a descriptor's slices are valid for ever.
    let (name, version, methods) = unsafe { (name.bytes(), version.bytes(), methods_json.bytes()) };
    let methods = serde_json::from_slice(methods)
        .map_err(|error| bad(path, &format!("methods_json: {error}")))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Confirmed { name: text(name), version: text(version), methods })
}

/// A private copy of a library for the time of its loading.
struct Copy(PathBuf);

impl Copy {
    fn of(bytes: &[u8], dir: &Path) -> io::Result<Self> {
        private_dir(dir)?;
        let path =
            dir.join(format!("{:016x}{}", rand::random::<u64>(), std::env::consts::DLL_SUFFIX));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let copy = Self(path);
        file.write_all(bytes)?;
        Ok(copy)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // Loaded or not, the file has served; a leftover would be inert.
        let _ = fs::remove_file(&self.0);
    }
}

fn open(file: &Path, path: &Path) -> Result<RolloutPlugin, Cause> {
    // SAFETY: loading runs the library's constructors; a manifest names code to be run. All symbols
    // are bound now, so that a missing one is an error here and not the worker's end later.
    let library = unsafe { Library::open(Some(file), RTLD_NOW | RTLD_LOCAL) }
        .map_err(|source| Cause::Unloadable { path: path.to_owned(), source })?;
    // Never unloaded: its threads and its statics may live as long as the process.
    let library = ManuallyDrop::new(library);
    // SAFETY: the symbol's name states its type.
    let entry = unsafe { library.get::<abi::Entry>(abi::SYMBOL) }
        .map_err(|_| Cause::MissingSymbol { path: path.to_owned(), symbol: "rollout_plugin_v1" })?;
    // SAFETY: the ABI says that it takes nothing and may be called from any thread.
    check_descriptor(unsafe { entry() }, path)
}

/// Reads what every version has at the same place, and the rest only if it may.
fn check_descriptor(descriptor: *const RolloutPlugin, path: &Path) -> Result<RolloutPlugin, Cause> {
    if descriptor.is_null() || !descriptor.is_aligned() {
        return Err(bad(path, "it is null or not aligned"));
    }
    // SAFETY: not null and aligned; a descriptor lives for ever and has at least these fields.
    let (magic, major, minor, size) = unsafe {
        (
            (*descriptor).magic,
            (*descriptor).abi_major,
            (*descriptor).abi_minor,
            (*descriptor).struct_size,
        )
    };
    if magic != abi::MAGIC {
        return Err(bad(path, "its magic number is wrong"));
    }
    if major != abi::ABI_MAJOR {
        return Err(Cause::AbiMismatch {
            have: format!("{major}.{minor} of the C ABI"),
            want: format!("{}.{}", abi::ABI_MAJOR, abi::ABI_MINOR),
        });
    }
    let least = RolloutPlugin::SIZE_1_0;
    if (size as usize) < least {
        return Err(bad(path, &format!("struct_size is {size}, less than version 1.0's {least}")));
    }
    let mut whole = MaybeUninit::<RolloutPlugin>::zeroed();
    // SAFETY: no more is read than the descriptor has, and no more is written than there is room for;
    // what is left are null pointers, as in a plugin that does without. All of it is plain data.
    Ok(unsafe {
        let covered = (size as usize).min(size_of::<RolloutPlugin>());
        let to = whole.as_mut_ptr().cast::<u8>();
        descriptor.cast::<u8>().copy_to_nonoverlapping(to, covered);
        whole.assume_init()
    })
}

fn bad(path: &Path, message: &str) -> Cause {
    Cause::BadDescriptor { path: path.to_owned(), message: message.to_owned() }
}

/// Tells a library for another processor, and what is no library, from what the system may load.
fn check_header(bytes: &[u8], path: &Path) -> Result<(), Cause> {
    let Some(machine) = machine(bytes) else {
        return Err(Cause::NotALibrary { path: path.to_owned() });
    };
    let want = std::env::consts::ARCH;
    let known = MACHINES.iter().find(|(number, _)| *number == machine);
    if MACHINES.iter().any(|(_, name)| *name == want) && known.is_none_or(|(_, name)| *name != want)
    {
        let have = known.map_or_else(|| format!("machine {machine}"), |(_, name)| (*name).into());
        return Err(Cause::WrongArch { path: path.to_owned(), have, want });
    }
    Ok(())
}

#[cfg(not(target_os = "macos"))]
const MACHINES: &[(u32, &str)] =
    &[(62, "x86_64"), (183, "aarch64"), (3, "x86"), (40, "arm"), (243, "riscv64")];

/// The machine of an ELF shared object in this system's byte order.
#[cfg(not(target_os = "macos"))]
fn machine(bytes: &[u8]) -> Option<u32> {
    const SHARED_OBJECT: u16 = 3;
    let half = |at: usize| bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes);
    (bytes.starts_with(b"\x7fELF") && half(16)? == SHARED_OBJECT).then_some(u32::from(half(18)?))
}

#[cfg(target_os = "macos")]
const MACHINES: &[(u32, &str)] = &[(0x0100_0007, "x86_64"), (0x0100_000c, "aarch64")];

/// The machine of a Mach-O file for one machine.
#[cfg(target_os = "macos")]
fn machine(bytes: &[u8]) -> Option<u32> {
    const THIN: u32 = 0xfeed_facf;
    let word = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    (word(0)? == THIN).then_some(word(4)?)
}
