//! The mistakes.

/// A mistake that a device can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// Rotary positions left out.
    RopeOff,
    /// Text rows turned as well, by the positions of the first video rows.
    RopeOnText,
    /// Every video row turned by the position of the row before it.
    RopeLate,
    /// Queries and keys not normalised.
    QkNormDropped,
    /// Added positions left out.
    PositionsDropped,
    /// The video's gate on text, and the text's on video.
    GatesSwapped,
    /// Shift and scale of every modulation exchanged.
    ShiftAndScaleSwapped,
    /// `norm_final` left out.
    FirstTailNormDropped,
    /// `norm_out.norm` left out, its modulation kept.
    SecondTailNormDropped,
    /// Scores of the transformer not scaled.
    AttentionUnscaled,
    /// No SiLU between the time embedding and the modulations.
    TimeSiluDropped,
    /// The halves of guidance exchanged.
    GuidanceSwapped,
    /// T5's position bias left out.
    TextBiasDropped,
    /// T5's position bias for query minus key.
    TextBiasMirrored,
    /// T5's scores scaled as other models do.
    TextScaled,
    /// Convolutions forget the frames before their chunk.
    ConvCacheDropped,
    /// Convolutions see zeros before their chunk.
    ConvCacheZeroed,
    /// Group norm by the statistics of a chunk's first frame.
    StatisticsOfFirstFrame,
    /// The decoder's norms not modulated by the latents.
    SpatialModulationDropped,
    /// No SiLU after group norm.
    GroupNormSiluDropped,
    /// Latents multiplied by the scaling factor where they are to be divided.
    LatentsScaledUp,
    /// Seams blended horizontally first.
    BlendOrder,
    /// Seams not blended.
    BlendSkipped,
    /// The encoder pools each frame with the one before it, the odd first frame included.
    FirstFramePooled,
    /// The encoder drops every other frame where it should pool.
    SecondFramesDropped,
    /// The encoder's reductions padded at the top and on the left.
    PaddedTopLeft,
    /// No noise in draws from the posterior.
    PosteriorMean,
    /// Logarithms of variances taken for those of standard deviations.
    PosteriorUnhalved,
}
