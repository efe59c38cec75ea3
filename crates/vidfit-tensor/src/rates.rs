//! What operations cost in time: a formula, and a device's numbers for it.
//!
//! The time of an operation is a sum of what it has to do, each at the device's own pace:
//!
//! ```text
//! seconds = call + flops · a + weight bytes · w + other bytes · b + function values · f
//! ```
//!
//! - *call*: handing the work out and waiting for the last thread, or launching a kernel.
//! - *flops*: multiplications and additions of products, the bulk of most jobs.
//! - *weight bytes*: a weight is read once and brought into the form that the kernel wants however
//!   few rows it is multiplied with. A product of few rows is bound by it.
//! - *other bytes*: activations in and out, which count where a product has a short inner dimension
//!   and in everything that is not a product.
//! - *function values*: exponentials in softmax, SiLU and GELU.
//!
//! On a processor the parts add up, because the same cores do all of them. A card has units for
//! each, so there the longer of arithmetic and traffic hides the other
//! ([`Rates::hides_traffic`], the "roofline" of Williams, Waterman and Patterson 2009).
//!
//! The numbers differ between classes of operations ([`Class`]) and types, because kernels do.

mod published;

use crate::DType;
use serde::{Deserialize, Serialize};

/// Kinds of operations that have numbers of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Matrix products; the type is the weight's.
    Linear,
    /// Attention; the type is the queries'.
    Attention,
    /// Convolutions; the type is the frames'.
    Convolution,
    /// Convolutions to at most [`THIN_CHANNELS`] channels, which fill few of a kernel's columns.
    ThinConvolution,
    /// Layer and RMS norms, norms of queries and keys; the type is the operand's.
    Norm,
    /// Statistics of group norms; the type is the frames'.
    Statistics,
    /// Group norms by known statistics; the type is the frame's.
    GroupNorm,
    /// Sums, casts, copies and functions of single elements; the type is the destination's.
    Elementwise,
    /// Host values that the computing queue waits for; the type is the destination's.
    Upload,
    /// Device values that the host waits for; the type is the source's.
    Download,
}

impl Class {
    /// All of them.
    pub const ALL: [Class; 10] = [
        Class::Linear,
        Class::Attention,
        Class::Convolution,
        Class::ThinConvolution,
        Class::Norm,
        Class::Statistics,
        Class::GroupNorm,
        Class::Elementwise,
        Class::Upload,
        Class::Download,
    ];
}

/// The most channels out of a [`Class::ThinConvolution`].
pub const THIN_CHANNELS: usize = 8;

/// What an operation has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Multiplications and additions of products.
    pub flops: f64,
    /// Bytes of a weight.
    pub weight_bytes: u64,
    /// Bytes of everything else that is read and written, each operand counted once.
    pub bytes: u64,
    /// Values of functions such as the exponential.
    pub functions: u64,
}

/// An operation that a dry run has met.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Operation {
    /// Its kind.
    pub class: Class,
    /// The type that its kind names.
    pub dtype: DType,
    /// What it has to do.
    pub work: Work,
}

/// What one class of operations costs for one type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// For each operation.
    pub seconds_per_call: f64,
    /// For each multiplication or addition.
    pub seconds_per_flop: f64,
    /// For each byte of weights.
    pub seconds_per_weight_byte: f64,
    /// For each other byte read or written.
    pub seconds_per_byte: f64,
    /// For each value of a function.
    pub seconds_per_function: f64,
}

impl Cost {
    /// The time of `work`; see the module's formula. `hides_traffic` as in [`Rates`].
    pub fn seconds(&self, work: &Work, hides_traffic: bool) -> f64 {
        let arithmetic =
            self.seconds_per_flop * work.flops + self.seconds_per_function * work.functions as f64;
        let traffic = self.seconds_per_weight_byte * work.weight_bytes as f64
            + self.seconds_per_byte * work.bytes as f64;
        let both = if hides_traffic { arithmetic.max(traffic) } else { arithmetic + traffic };
        self.seconds_per_call + both
    }

    fn is_possible(&self) -> bool {
        let parts = [
            self.seconds_per_call,
            self.seconds_per_flop,
            self.seconds_per_weight_byte,
            self.seconds_per_byte,
            self.seconds_per_function,
        ];
        parts.iter().all(|part| part.is_finite() && *part >= 0.0)
    }
}

/// A cost for each type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PerType {
    /// Single precision.
    pub f32: Cost,
    /// Brain floating point.
    pub bf16: Cost,
    /// Half precision.
    pub f16: Cost,
}

impl PerType {
    /// The same for all types.
    pub fn all(cost: Cost) -> PerType {
        PerType { f32: cost, bf16: cost, f16: cost }
    }

    /// That of `dtype`.
    pub fn of(&self, dtype: DType) -> &Cost {
        match dtype {
            DType::F32 => &self.f32,
            DType::BF16 => &self.bf16,
            DType::F16 => &self.f16,
        }
    }

    /// That of `dtype`, to be changed.
    pub fn of_mut(&mut self, dtype: DType) -> &mut Cost {
        match dtype {
            DType::F32 => &mut self.f32,
            DType::BF16 => &mut self.bf16,
            DType::F16 => &mut self.f16,
        }
    }
}

/// What a copy on one of the copying queues costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopyCost {
    /// For each copy.
    pub seconds_per_copy: f64,
    /// For each byte.
    pub seconds_per_byte: f64,
}

impl CopyCost {
    /// A queue that copies this much.
    pub fn at(bytes_per_second: f64, seconds_per_copy: f64) -> CopyCost {
        CopyCost { seconds_per_copy, seconds_per_byte: bytes_per_second.recip() }
    }

    /// The time of a copy.
    pub fn seconds(&self, bytes: u64) -> f64 {
        self.seconds_per_copy + self.seconds_per_byte * bytes as f64
    }
}

/// A device's numbers. The default is a device for which nothing takes any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// [`Class::Linear`].
    pub linear: PerType,
    /// [`Class::Attention`].
    pub attention: PerType,
    /// [`Class::Convolution`].
    pub convolution: PerType,
    /// [`Class::ThinConvolution`].
    pub thin_convolution: PerType,
    /// [`Class::Norm`].
    pub norm: PerType,
    /// [`Class::Statistics`].
    pub statistics: PerType,
    /// [`Class::GroupNorm`].
    pub group_norm: PerType,
    /// [`Class::Elementwise`].
    pub elementwise: PerType,
    /// [`Class::Upload`].
    pub upload: PerType,
    /// [`Class::Download`].
    pub download: PerType,
    /// The queue of [`crate::Device::begin_upload`].
    pub upload_queue: CopyCost,
    /// The queue of [`crate::Device::begin_download`].
    pub download_queue: CopyCost,
    /// Whether arithmetic and memory traffic of an operation hide each other, or add up.
    pub hides_traffic: bool,
    /// Whether copies that are begun are done before the call returns, by who would compute
    /// otherwise: the CPU device does it so.
    pub copies_at_once: bool,
}

impl Rates {
    /// The costs of a class.
    pub fn class(&self, class: Class) -> &PerType {
        match class {
            Class::Linear => &self.linear,
            Class::Attention => &self.attention,
            Class::Convolution => &self.convolution,
            Class::ThinConvolution => &self.thin_convolution,
            Class::Norm => &self.norm,
            Class::Statistics => &self.statistics,
            Class::GroupNorm => &self.group_norm,
            Class::Elementwise => &self.elementwise,
            Class::Upload => &self.upload,
            Class::Download => &self.download,
        }
    }

    /// The costs of a class, to be changed.
    pub fn class_mut(&mut self, class: Class) -> &mut PerType {
        match class {
            Class::Linear => &mut self.linear,
            Class::Attention => &mut self.attention,
            Class::Convolution => &mut self.convolution,
            Class::ThinConvolution => &mut self.thin_convolution,
            Class::Norm => &mut self.norm,
            Class::Statistics => &mut self.statistics,
            Class::GroupNorm => &mut self.group_norm,
            Class::Elementwise => &mut self.elementwise,
            Class::Upload => &mut self.upload,
            Class::Download => &mut self.download,
        }
    }

    /// The time of an operation.
    pub fn seconds(&self, operation: &Operation) -> f64 {
        let cost = self.class(operation.class).of(operation.dtype);
        cost.seconds(&operation.work, self.hides_traffic)
    }

    /// Whether every number is a time: finite, and not negative. Numbers from a file may be
    /// anything.
    pub fn is_possible(&self) -> bool {
        let costs = Class::ALL.iter().flat_map(|class| {
            let PerType { f32, bf16, f16 } = self.class(*class);
            [f32, bf16, f16]
        });
        let queue = |copy: &CopyCost| {
            let parts = [copy.seconds_per_copy, copy.seconds_per_byte];
            parts.iter().all(|part| part.is_finite() && *part >= 0.0)
        };
        let mut costs = costs;
        costs.all(Cost::is_possible) && queue(&self.upload_queue) && queue(&self.download_queue)
    }
}
