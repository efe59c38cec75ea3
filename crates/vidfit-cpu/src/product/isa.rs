//! Which kernels a product takes.

/// An instruction set that this machine has: a value other than the portable one is proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Isa(Level);

/// The levels that kernels are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Isa {
    /// The best there is.
    pub fn best() -> Isa {
        #[cfg(target_arch = "x86_64")]
        {
            if crate::simd::has_avx512() {
                return Isa(Level::Avx512);
            }
            if crate::simd::has_avx2() {
                return Isa(Level::Avx2);
            }
        }
        Isa(Level::Portable)
    }

    pub(super) fn level(self) -> Level {
        self.0
    }

    /// Every one that this machine has.
    #[cfg(test)]
    pub fn all() -> Vec<Isa> {
        let mut all = vec![Isa(Level::Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(crate::simd::has_avx2().then_some(Isa(Level::Avx2)));
            all.extend(crate::simd::has_avx512().then_some(Isa(Level::Avx512)));
        }
        all
    }
}
