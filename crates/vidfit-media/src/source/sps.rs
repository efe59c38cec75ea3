//! What of H.264's headers (ITU-T H.264, 7.3) must be known before decoding.

/// The sequence parameters that matter to us.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sps {
    /// Size in pixels, after cropping.
    pub(super) width: u32,
    pub(super) height: u32,
    profile: u8,
    chroma_format: u32,
    bit_depth: u32,
    is_interlaced: bool,
    pub(super) colour: Colour,
    frame_num_bits: u32,
    /// Bits of a picture's place in the order of showing; `None` where it is not written down.
    order_bits: Option<u32>,
}

/// How YUV became of RGB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Colour {
    /// `matrix_coefficients` of ITU-T H.273; `None` if nothing says so.
    pub(super) matrix: Option<u8>,
    /// Whether levels go from 0 to 255, not from 16 to 235.
    pub(super) is_full_range: bool,
}

impl Sps {
    /// Reads a parameter set, NAL header included; `None` if it breaks off or makes no sense.
    pub(super) fn parse(nal: &[u8]) -> Option<Self> {
        let mut bits = Bits::new(nal.get(1..)?);
        let profile = bits.number(8)? as u8;
        bits.number(16)?; // constraints and level
        bits.exp_golomb()?; // its own number
        let (mut chroma_format, mut bit_depth, mut separate_planes) = (1, 8, false);
        if [100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135].contains(&profile) {
            chroma_format = bits.exp_golomb()?;
            if chroma_format == 3 {
                separate_planes = bits.flag()?;
            }
            let (luma, chroma) = (bits.exp_golomb()?, bits.exp_golomb()?);
            bit_depth = 8 + luma.max(chroma);
            bits.flag()?; // lossless
            if bits.flag()? {
                for list in 0..if chroma_format == 3 { 12 } else { 8 } {
                    if bits.flag()? {
                        skip_scaling_list(&mut bits, if list < 6 { 16 } else { 64 })?;
                    }
                }
            }
        }
        let frame_num_bits = bits.exp_golomb()?.checked_add(4).filter(|&bits| bits <= 16)?;
        let order_bits = match bits.exp_golomb()? {
            0 => Some(bits.exp_golomb()?.checked_add(4).filter(|&bits| bits <= 16)?),
            1 => {
                bits.flag()?;
                bits.exp_golomb()?;
                bits.exp_golomb()?;
                for _ in 0..bits.exp_golomb()?.min(256) {
                    bits.exp_golomb()?;
                }
                None
            }
            _ => None,
        };
        bits.exp_golomb()?; // reference frames
        bits.flag()?; // gaps
        let width = bits.exp_golomb()?.checked_add(1)?.checked_mul(16)?;
        let map_height = bits.exp_golomb()?.checked_add(1)?.checked_mul(16)?;
        let is_interlaced = !bits.flag()?;
        let height = map_height.checked_mul(if is_interlaced { 2 } else { 1 })?;
        if is_interlaced {
            bits.flag()?;
        }
        bits.flag()?; // direct 8x8
        let mut crop = [0u32; 4];
        if bits.flag()? {
            for side in &mut crop {
                *side = bits.exp_golomb()?;
            }
        }
        let unit_x = if matches!(chroma_format, 1 | 2) { 2 } else { 1 };
        let unit_y = if chroma_format == 1 { 2 } else { 1 } * if is_interlaced { 2 } else { 1 };
        let [left, right, top, bottom] = crop;
        let width = width.checked_sub(left.checked_add(right)?.checked_mul(unit_x)?)?;
        let height = height.checked_sub(top.checked_add(bottom)?.checked_mul(unit_y)?)?;
        let colour = if bits.flag()? { colour_of_vui(&mut bits)? } else { Colour::default() };
        let chroma_format = if separate_planes { 3 } else { chroma_format };
        Some(Self {
            width,
            height,
            profile,
            chroma_format,
            bit_depth,
            is_interlaced,
            colour,
            frame_num_bits,
            order_bits,
        })
    }

    /// What about this stream our decoder does not do, in words.
    pub(super) fn foreign(&self) -> Option<String> {
        let chroma = ["grey", "4:2:0", "4:2:2", "4:4:4"].get(self.chroma_format as usize);
        if self.chroma_format != 1 {
            return Some(format!("H.264 in {} colours", chroma.unwrap_or(&"unknown")));
        }
        if self.bit_depth != 8 {
            return Some(format!("H.264 with {} bits a colour", self.bit_depth));
        }
        if self.is_interlaced {
            return Some("interlaced H.264".into());
        }
        // Level 5.2, the highest that OpenH264 knows.
        const MAX_MACROBLOCKS: u32 = 36_864;
        if self.width.div_ceil(16) * self.height.div_ceil(16) > MAX_MACROBLOCKS {
            return Some("H.264 larger than 4096x2304".into());
        }
        if ![66, 77, 100].contains(&self.profile) {
            return Some(format!("H.264 of profile {}", self.profile));
        }
        None
    }

    /// Where in the order of showing the picture of a slice stands, modulo a power of two.
    /// `None` if it is not written down.
    pub(super) fn order_of_slice(&self, nal: &[u8]) -> Option<u32> {
        let is_key = nal.first()? & 0x1f == 5;
        // The fields before it are short.
        let mut bits = Bits::new(nal.get(1..nal.len().min(32))?);
        bits.exp_golomb()?; // first macroblock
        bits.exp_golomb()?; // kind of slice
        bits.exp_golomb()?; // picture parameters
        bits.number(self.frame_num_bits)?;
        if is_key {
            bits.exp_golomb()?;
        }
        bits.number(self.order_bits?)
    }
}

fn skip_scaling_list(bits: &mut Bits, length: usize) -> Option<()> {
    let (mut last, mut next) = (8i64, 8i64);
    for _ in 0..length {
        if next != 0 {
            next = (last + bits.signed_exp_golomb()?).rem_euclid(256);
        }
        last = if next == 0 { last } else { next };
    }
    Some(())
}

/// The beginning of the video usability information (Annex E).
fn colour_of_vui(bits: &mut Bits) -> Option<Colour> {
    const OWN_ASPECT: u32 = 255;
    const UNSPECIFIED: u32 = 2;
    if bits.flag()? && bits.number(8)? == OWN_ASPECT {
        bits.number(32)?;
    }
    if bits.flag()? {
        bits.flag()?; // overscan
    }
    let mut colour = Colour::default();
    if bits.flag()? {
        bits.number(3)?; // video format
        colour.is_full_range = bits.flag()?;
        if bits.flag()? {
            bits.number(16)?; // primaries and transfer
            let matrix = bits.number(8)?;
            colour.matrix = (matrix != UNSPECIFIED).then_some(matrix as u8);
        }
    }
    Some(colour)
}

/// Bits from the highest on, without the bytes that keep start codes out of the stream.
struct Bits {
    bytes: Vec<u8>,
    at: usize,
}

impl Bits {
    fn new(payload: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(payload.len());
        let mut zeros = 0;
        for &byte in payload {
            if zeros >= 2 && byte == 3 {
                zeros = 0;
                continue;
            }
            zeros = if byte == 0 { zeros + 1 } else { 0 };
            bytes.push(byte);
        }
        Self { bytes, at: 0 }
    }

    fn flag(&mut self) -> Option<bool> {
        let byte = self.bytes.get(self.at / 8)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Some(bit == 1)
    }

    /// A number of up to 32 bits.
    fn number(&mut self, bits: u32) -> Option<u32> {
        (0..bits).try_fold(0u32, |number, _| Some(number << 1 | u32::from(self.flag()?)))
    }

    /// ue(v), below 2^31.
    fn exp_golomb(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
        }
        if zeros > 30 {
            return None;
        }
        Some((1 << zeros) - 1 + self.number(zeros)?)
    }

    /// se(v).
    fn signed_exp_golomb(&mut self) -> Option<i64> {
        let code = i64::from(self.exp_golomb()?);
        Some(if code % 2 == 0 { -code / 2 } else { (code + 1) / 2 })
    }
}
