//! Which algorithm makes the products of a kind.

use super::describe::{Described, Made};
use super::library::*;
use super::proof::Proof;
use super::{Blas, Kind, Obstacle};
use std::ffi::{c_int, c_void};

/// What the library is asked for: as the transformer of 49 frames of 480×720 has them (rows, columns,
/// depth). It is much the most of the work.
const ASKED_FOR: [u64; 3] = [17_776, 3072, 3072];

/// As many of the library's proposals are looked at.
const PROPOSALS: usize = 32;

/// What an algorithm must take besides: the least and the most that models have, and some between.
const ROWS: [u64; 5] = [1, 50, 226, 17_776, 85_906];
const COLUMNS: [u64; 5] = [8, 64, 1920, 3072, 18_432];
const DEPTHS: [u64; 5] = [64, 512, 1920, 4096, 12_288];

impl Blas {
    /// The first of the library's proposals for a kind with which a product's bits do not depend on what
    /// else is computed with it.
    ///
    /// Timings choose nothing: they would choose otherwise another day.
    pub(super) fn pin(
        &self,
        kind: Kind,
        proof: &mut Proof<'_>,
        stream: *mut c_void,
    ) -> Result<Algorithm, Obstacle> {
        let proposals = self.proposals(kind, proof.bias()).map_err(Obstacle::Library)?;
        let mut reasons = Vec::new();
        for proposal in &proposals {
            let algorithm = proposal.algorithm;
            let suits = self
                .is_one_sum(proposal)
                .and_then(|()| self.takes_all_shapes(kind, &algorithm, proof.bias()));
            let proved = suits.map_err(Obstacle::Library).and_then(|()| {
                // SAFETY: operands are in the proof's memory, and the caller's context is entered.
                proof.prove(kind, |product| unsafe {
                    self.multiply(kind, &algorithm, product, stream)
                })
            });
            match proved {
                Ok(()) => return Ok(algorithm),
                Err(Obstacle::Library(why)) => reasons.push(why),
                Err(card) => return Err(card),
            }
        }
        reasons.dedup();
        Err(Obstacle::Library(match &reasons[..] {
            [] => "it proposes no algorithm".into(),
            reasons => format!("none of its algorithms will do: {}", reasons.join(", ")),
        }))
    }

    /// What the library proposes, the fastest by its own estimate first.
    ///
    /// No workspace is allowed, and no reduction: partial sums of a product, whose number depends on its
    /// shape, then have no place to wait.
    fn proposals(&self, kind: Kind, bias: u64) -> Result<Vec<Choice>, String> {
        let functions = &self.library.functions;
        let preference = Made::new(
            "describing what is wanted",
            functions.cublasLtMatmulPreferenceDestroy,
            // SAFETY: writes the handle.
            |handle| unsafe { (functions.cublasLtMatmulPreferenceCreate)(handle) },
        )?;
        self.prefer(&preference, MATMUL_PREF_MAX_WORKSPACE_BYTES, 0u64)?;
        self.prefer(&preference, MATMUL_PREF_REDUCTION_SCHEME_MASK, REDUCTION_SCHEME_NONE)?;
        for alignment in MATMUL_PREF_MIN_ALIGNMENT_BYTES {
            self.prefer(&preference, alignment, crate::driver::PRODUCT_ALIGNMENT as u32)?;
        }
        let described = Described::new(functions, kind, ASKED_FOR, bias)?;
        let mut choices = [Choice::NONE; PROPOSALS];
        let mut count: c_int = 0;
        // SAFETY: writes as many choices as there is room for, and how many they are.
        let asked = unsafe {
            (functions.cublasLtMatmulAlgoGetHeuristic)(
                self.handle.handle,
                described.operation.handle,
                described.weight.handle,
                described.x.handle,
                described.target.handle,
                described.target.handle,
                preference.handle,
                PROPOSALS as c_int,
                choices.as_mut_ptr(),
                &mut count,
            )
        };
        check("asking it for algorithms", asked)?;
        let count = usize::try_from(count).unwrap_or(0);
        Ok(choices.into_iter().take(count).filter(|choice| choice.state == 0).collect())
    }

    fn prefer<T>(&self, preference: &Made, attribute: c_int, value: T) -> Result<(), String> {
        // SAFETY: reads the value, whose type is the attribute's.
        let set = unsafe {
            (self.library.functions.cublasLtMatmulPreferenceSetAttribute)(
                preference.handle,
                attribute,
                (&raw const value).cast(),
                size_of::<T>(),
            )
        };
        check("describing what is wanted", set)
    }

    /// Whether each sum is made as one.
    fn is_one_sum(&self, proposal: &Choice) -> Result<(), String> {
        // 0 and 1 both are no split.
        let splits: i32 = self.configured(&proposal.algorithm, ALGO_CONFIG_SPLITK_NUM)?;
        let reduction: u32 = self.configured(&proposal.algorithm, ALGO_CONFIG_REDUCTION_SCHEME)?;
        match (proposal.workspace_bytes, splits, reduction) {
            (0, 0 | 1, REDUCTION_SCHEME_NONE) => Ok(()),
            _ => Err("sums are made in parts".into()),
        }
    }

    /// How an algorithm is configured: a number.
    fn configured<T: bytemuck::Pod>(
        &self,
        algorithm: &Algorithm,
        attribute: c_int,
    ) -> Result<T, String> {
        let (mut value, mut written) = (T::zeroed(), 0);
        // SAFETY: writes at most the value, which is a number, whatever its bytes are.
        let asked = unsafe {
            (self.library.functions.cublasLtMatmulAlgoConfigGetAttribute)(
                algorithm,
                attribute,
                (&raw mut value).cast(),
                size_of::<T>(),
                &mut written,
            )
        };
        check("asking what an algorithm does", asked).map(|()| value)
    }

    /// Whether an algorithm takes every shape that models have, without a workspace. What lies between
    /// them is like them.
    fn takes_all_shapes(&self, kind: Kind, algorithm: &Algorithm, bias: u64) -> Result<(), String> {
        for shape in ROWS.into_iter().flat_map(|rows| {
            COLUMNS.into_iter().flat_map(move |columns| {
                DEPTHS.into_iter().map(move |depth| [rows, columns, depth])
            })
        }) {
            if !self.takes(kind, algorithm, shape, bias)? {
                let [rows, columns, depth] = shape;
                return Err(format!("{rows} rows, {columns} columns, depth {depth} are refused"));
            }
        }
        Ok(())
    }

    fn takes(
        &self,
        kind: Kind,
        algorithm: &Algorithm,
        shape: [u64; 3],
        bias: u64,
    ) -> Result<bool, String> {
        let functions = &self.library.functions;
        let described = Described::new(functions, kind, shape, bias)?;
        let mut result = Choice::NONE;
        // SAFETY: writes the result.
        let checked = unsafe {
            (functions.cublasLtMatmulAlgoCheck)(
                self.handle.handle,
                described.operation.handle,
                described.weight.handle,
                described.x.handle,
                described.target.handle,
                described.target.handle,
                algorithm,
                &mut result,
            )
        };
        Ok(check("", checked).is_ok() && result.workspace_bytes == 0)
    }
}
