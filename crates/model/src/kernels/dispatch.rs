//! Which vector instructions this machine has, and loops compiled for each.

use std::sync::LazyLock;

/// Vector instructions that the kernels are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Isa {
    /// AVX-512 F, BW, VL and DQ, and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// What every machine has.
    Portable,
}

static ISA: LazyLock<Isa> = LazyLock::new(|| {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("fma")
        {
            return Isa::Avx512;
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return Isa::Avx2;
        }
    }
    Isa::Portable
});

/// The best that this machine has.
pub(super) fn isa() -> Isa {
    *ISA
}

/// Their names, for reports.
pub fn instructions() -> &'static str {
    match isa() {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => "AVX-512",
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => "AVX2 and FMA",
        Isa::Portable => "portable",
    }
}

/// Compiles a function's body once per set of vector instructions, for the compiler to vectorise, and calls this machine's.
///
/// The body says each addition and multiplication by itself, so all compilations give the same bits.
macro_rules! vectorised {
    ($(#[$meta:meta])* pub(super) fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $out:ty)? $body:block) => {
        $(#[$meta])*
        pub(super) fn $name($($arg: $type),*) $(-> $out)? {
            #[inline(always)]
            fn body($($arg: $type),*) $(-> $out)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
            fn avx512($($arg: $type),*) $(-> $out)? {
                body($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2")]
            fn avx2($($arg: $type),*) $(-> $out)? {
                body($($arg),*)
            }

            match $crate::kernels::dispatch::isa() {
                #[cfg(target_arch = "x86_64")]
                #[expect(unsafe_code, reason = "calls code for this machine's instructions")]
                // SAFETY: `isa` found these instructions here.
                $crate::kernels::dispatch::Isa::Avx512 => unsafe { avx512($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                #[expect(unsafe_code, reason = "calls code for this machine's instructions")]
                // SAFETY: as above.
                $crate::kernels::dispatch::Isa::Avx2 => unsafe { avx2($($arg),*) },
                $crate::kernels::dispatch::Isa::Portable => body($($arg),*),
            }
        }
    };
}
pub(super) use vectorised;
