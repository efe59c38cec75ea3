//! Frame rates as fractions, so that no clip drifts.

use crate::MediaError;

/// A frame rate: a reduced fraction of frames per second, above 0 and at most 240.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fps {
    frames: u32,
    seconds: u32,
}

impl Fps {
    const MAX: f64 = 240.0;
    /// Largest denominator: enough for any rate given with three decimals below 100 seconds.
    const MAX_SECONDS: u64 = 100_000;

    /// The rate nearest to `fps` frames per second.
    ///
    /// Decimal spellings of the NTSC rates (29.97, 23.976, 59.94) become the fractions over 1001
    /// they stand for; other numbers become the simplest fraction within a millionth.
    ///
    /// # Errors
    ///
    /// [`MediaError::BadFps`] if `fps` is not a number, not above 0, above 240, or so small that
    /// a frame would last more than 100 000 seconds.
    pub fn new(fps: f64) -> Result<Self, MediaError> {
        if !(fps > 0.0 && fps <= Self::MAX) {
            return Err(MediaError::BadFps { fps });
        }
        for whole in [24u32, 30, 48, 60, 120, 240] {
            let ntsc = f64::from(whole) * 1000.0 / 1001.0;
            // 29.97 and 23.98 are both in use: half of the last digit is the tolerance.
            if (fps - ntsc).abs() < 0.005 {
                return Self::from_fraction(whole * 1000, 1001);
            }
        }
        let (frames, seconds) = simplest_fraction(fps, Self::MAX_SECONDS);
        match (u32::try_from(frames), u32::try_from(seconds)) {
            (Ok(frames), Ok(seconds)) if frames > 0 => Self::from_fraction(frames, seconds),
            _ => Err(MediaError::BadFps { fps }),
        }
    }

    /// `frames` frames in `seconds` seconds.
    ///
    /// # Errors
    ///
    /// [`MediaError::BadFps`] if either is 0, or the rate is above 240 or below one frame in
    /// 100 000 seconds.
    pub fn from_fraction(frames: u32, seconds: u32) -> Result<Self, MediaError> {
        let fps = f64::from(frames) / f64::from(seconds);
        let longest = u64::from(frames) * Self::MAX_SECONDS;
        if !(fps > 0.0 && fps <= Self::MAX && u64::from(seconds) <= longest) {
            return Err(MediaError::BadFps { fps });
        }
        let divisor = greatest_common_divisor(frames, seconds);
        Ok(Self { frames: frames / divisor, seconds: seconds / divisor })
    }

    /// Frames, the numerator of the reduced fraction.
    pub fn frames(self) -> u32 {
        self.frames
    }

    /// Seconds in which that many frames are shown, the denominator.
    pub fn seconds(self) -> u32 {
        self.seconds
    }

    /// Frames per second.
    pub fn as_f64(self) -> f64 {
        f64::from(self.frames) / f64::from(self.seconds)
    }
}

impl std::fmt::Display for Fps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.seconds == 1 {
            return write!(f, "{}", self.frames);
        }
        write!(f, "{}/{}", self.frames, self.seconds)
    }
}

/// The first convergent of the continued fraction of `value` that is within a millionth of it,
/// or the last one whose denominator is at most `max_denominator`.
fn simplest_fraction(value: f64, max_denominator: u64) -> (u64, u64) {
    let (mut p0, mut q0, mut p1, mut q1) = (0u64, 1u64, 1u64, 0u64);
    let mut rest = value;
    loop {
        let whole = rest.floor();
        let next_q = (whole as u64).saturating_mul(q1).saturating_add(q0);
        if next_q > max_denominator {
            return (p1, q1);
        }
        let next_p = (whole as u64).saturating_mul(p1).saturating_add(p0);
        (p0, q0, p1, q1) = (p1, q1, next_p, next_q);
        let error = (p1 as f64 / q1 as f64 - value).abs();
        if error <= value * 1e-6 || rest == whole {
            return (p1, q1);
        }
        rest = 1.0 / (rest - whole);
    }
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_become_the_fractions_they_stand_for() {
        let cases = [
            (8.0, (8, 1)),
            (16.0, (16, 1)),
            (12.5, (25, 2)),
            (7.3, (73, 10)),
            (0.1, (1, 10)),
            (29.97, (30000, 1001)),
            (30000.0 / 1001.0, (30000, 1001)),
            (23.976, (24000, 1001)),
            (59.94, (60000, 1001)),
            (1.0 / 3.0, (1, 3)),
            (240.0, (240, 1)),
        ];
        for (fps, expected) in cases {
            let fraction = Fps::new(fps).unwrap();
            assert_eq!((fraction.frames(), fraction.seconds()), expected, "{fps}");
        }
        assert_eq!(Fps::from_fraction(50, 2).unwrap(), Fps::new(25.0).unwrap());
        assert_eq!(Fps::new(29.97).unwrap().to_string(), "30000/1001");
    }

    #[test]
    fn any_rate_is_near() {
        for i in 1..24_000 {
            let fps = f64::from(i) / 100.0 + 1e-4;
            let near = Fps::new(fps).unwrap().as_f64();
            assert!((near - fps).abs() < 0.006, "{fps} became {near}");
        }
    }

    #[test]
    fn impossible_rates_are_refused() {
        for fps in [0.0, -8.0, 240.1, f64::NAN, f64::INFINITY, 1e-9] {
            let error = Fps::new(fps).unwrap_err();
            assert!(matches!(error, MediaError::BadFps { .. }), "{fps}");
        }
        assert!(Fps::from_fraction(0, 1).is_err());
        assert!(Fps::from_fraction(1, 0).is_err());
        assert!(Fps::from_fraction(0, 0).is_err());
        assert!(Fps::from_fraction(1, u32::MAX).is_err());
    }
}
