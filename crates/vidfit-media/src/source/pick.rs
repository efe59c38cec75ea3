//! Which frames of a video stand for it at a model's rate.

/// A time this much nearer, in seconds, decides between two frames; less is rounding.
const NEARER_SECONDS: f64 = 1e-6;

/// The frames, counted from 0, that stand for a video at `fps` frames per second, `most` of them
/// at most. `times` says when each is shown, in seconds, rising.
///
/// Time is kept: for each moment 0, 1/fps, 2/fps... before the end, the frame whose beginning is nearest is taken,
/// the earlier of two that are equally near. No frame is taken twice. So a video that is faster
/// than the model is thinned out evenly, and of one that is slower every frame is taken, as it is.
/// What is left after `most` frames is not shown.
///
/// ```
/// use vidfit_media::pick_frames;
///
/// let at_30_fps: Vec<f64> = (0..300).map(|frame| f64::from(frame) / 30.0).collect();
/// let picked = pick_frames(&at_30_fps, 8.0, 49);
/// assert_eq!(picked[..8], [0, 4, 7, 11, 15, 19, 22, 26]); // 3.75 apart
/// assert_eq!((picked.len(), picked[48]), (49, 180)); // 6 of the 10 seconds
/// ```
pub fn pick_frames(times: &[f64], fps: f64, most: usize) -> Vec<usize> {
    let Some(&start) = times.first() else {
        return Vec::new();
    };
    let since_start = |frame: usize| times[frame] - start;
    let end = end(times) - start;
    let mut picked = Vec::with_capacity(most.min(times.len()));
    let mut moment = 0.0;
    let mut frame = 0;
    while picked.len() < most {
        // The next frame is nearer to the moment once the moment is past half the way to it.
        while frame + 1 < times.len()
            && (since_start(frame) + since_start(frame + 1)) / 2.0 + NEARER_SECONDS < moment / fps
        {
            frame += 1;
        }
        picked.push(frame);
        if frame + 1 == times.len() {
            break;
        }
        // The first moment that is nearer to a later frame, which a still may put far ahead.
        let half_way = (since_start(frame) + since_start(frame + 1)) / 2.0 + NEARER_SECONDS;
        moment = (moment + 1.0).max((half_way * fps).floor() + 1.0);
        if moment / fps > end {
            break;
        }
    }
    picked
}

/// When the video is over: its last frame is taken to last as long as the one before, less a
/// quarter, because containers round times to hundredths or thousandths of a second.
fn end(times: &[f64]) -> f64 {
    match times {
        [.., before, last] => last + 0.75 * (last - before),
        _ => times.last().copied().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steady(frames: usize, fps: f64) -> Vec<f64> {
        (0..frames).map(|frame| frame as f64 / fps).collect()
    }

    #[test]
    fn a_fast_video_is_thinned_out_evenly() {
        let picked = pick_frames(&steady(300, 30.0), 8.0, 49);
        let expected: Vec<usize> =
            (0..49usize).map(|k| (k * 15).div_ceil(4) - usize::from(k % 4 > 1)).collect();
        assert_eq!(picked, expected);
        assert_eq!(pick_frames(&steady(48, 24.0), 8.0, 49), (0..48).step_by(3).collect::<Vec<_>>());
        assert_eq!(pick_frames(&steady(40, 16.0), 8.0, 5), [0, 2, 4, 6, 8]);
    }

    #[test]
    fn a_video_at_the_rate_or_below_is_taken_as_it_is() {
        for fps in [8.0, 7.99, 6.0, 1.0, 0.01] {
            let all: Vec<usize> = (0..20).collect();
            assert_eq!(pick_frames(&steady(20, fps), 8.0, 49), all, "{fps}");
        }
    }

    #[test]
    fn rounded_times_change_nothing() {
        for digits in [100.0, 1000.0] {
            let rounded = |fps| -> Vec<f64> {
                steady(49, fps).iter().map(|time| (time * digits).round() / digits).collect()
            };
            assert_eq!(pick_frames(&rounded(8.0), 8.0, 99), (0..49).collect::<Vec<_>>());
            assert_eq!(pick_frames(&rounded(16.0), 16.0, 99), (0..49).collect::<Vec<_>>());
            assert_eq!(
                pick_frames(&rounded(24.0), 8.0, 99),
                (0..49).step_by(3).collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn varying_rates_go_by_their_times() {
        // Ten a second for a second, a still of a second, ten a second again.
        let times: Vec<f64> = (0..20).map(|i| i as f64 / 10.0 + f64::from(i / 10)).collect();
        let times: Vec<f64> = times.iter().map(|t| t.min(2.9)).collect();
        let picked = pick_frames(&times, 5.0, 49);
        assert_eq!(picked, [0, 2, 4, 6, 8, 9, 10, 12, 14, 16, 18]);
    }

    #[test]
    fn there_are_never_more_than_there_are() {
        assert_eq!(pick_frames(&[], 8.0, 49), []);
        assert_eq!(pick_frames(&[0.0], 8.0, 49), [0]);
        assert_eq!(pick_frames(&[0.0, 1e12], 8.0, 49), [0, 1]);
        assert_eq!(pick_frames(&[5.0, 5.0, 5.0], 8.0, 49), [0]);
        assert_eq!(pick_frames(&steady(300, 30.0), 8.0, 0), []);
    }
}
