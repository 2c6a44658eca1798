//! Types of the ABI as C writes them.

use std::ffi::c_void;
use std::sync::atomic::AtomicU32;

use rollout_plugin_abi as abi;

/// A type that C has, too.
pub(crate) trait CType {
    /// Its name in C.
    fn name() -> String;
}

/// The name in C of a type.
pub(crate) fn type_name<T: CType>() -> String {
    T::name()
}

/// What holds in C for a field: its offset, its size and its type. The function is there for the
/// field's type alone.
pub(crate) fn field<S, T: CType>(
    of: &str,
    name: &str,
    offset: usize,
    _: fn(&S) -> *const T,
) -> [String; 3] {
    let value = format!("((({of} *)0)->{name})");
    [
        format!("offsetof({of}, {name}) == {offset}"),
        format!("sizeof {value} == {}", size_of::<T>()),
        format!("_Generic({value}, {}: 1, default: 0)", T::name()),
    ]
}

macro_rules! named {
    ($($rust:ty => $c:literal)+) => {
        $(impl CType for $rust {
            fn name() -> String {
                $c.into()
            }
        })+
    };
}

named! {
    u8 => "uint8_t"
    u16 => "uint16_t"
    u32 => "uint32_t"
    u64 => "uint64_t"
    i32 => "int32_t"
    c_void => "void"
    () => "void"
    AtomicU32 => "uint32_t"
    abi::Slice => "RolloutSlice"
    abi::Buf => "RolloutBuf"
    abi::Reply => "RolloutReply"
    abi::Call => "RolloutCall"
    abi::Host => "RolloutHost"
    abi::Sink => "RolloutSink"
    abi::RolloutPlugin => "RolloutPlugin"
}

/// A pointer: a star behind what it points to, without a space behind another star.
fn pointer(to: &str) -> String {
    let space = if to.ends_with('*') { "" } else { " " };
    format!("{to}{space}*")
}

impl<T: CType> CType for *mut T {
    fn name() -> String {
        pointer(&T::name())
    }
}

impl<T: CType> CType for *const T {
    fn name() -> String {
        // What a pointer points to is const behind its star.
        let to = T::name();
        if to.ends_with('*') { format!("{to}const *") } else { pointer(&format!("const {to}")) }
    }
}

macro_rules! functions {
    ($(($($argument:ident)*))+) => {
        $(impl<R: CType, $($argument: CType),*> CType
            for unsafe extern "C" fn($($argument),*) -> R
        {
            fn name() -> String {
                let arguments: &[String] = &[$($argument::name()),*];
                let void = || "void".to_owned();
                let arguments = if arguments.is_empty() { void() } else { arguments.join(", ") };
                format!("{} (*)({arguments})", R::name())
            }
        })+
    };
}

functions! { () (A) (A B) (A B C) (A B C D) (A B C D E) }

/// C's nullable function pointer.
impl<T: CType> CType for Option<T> {
    fn name() -> String {
        T::name()
    }
}
