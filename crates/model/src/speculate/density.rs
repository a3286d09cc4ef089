//! Fewer visual tokens from what they are, not from who looks at them: of tokens that are much alike one stays, which
//! stands for the mean of all. After FastVID (frames in segments that look alike, density peaks in each) with the
//! place of the token that stays; no attention is needed, so nothing of the target's is run for it.

use candle_core::{DType, Tensor};

use crate::ModelError;

/// A new segment begins where a frame's mean is less like the one before it than this cosine.
const ALIKE: f32 = 0.9;
/// Most tokens of a segment: each is compared with each.
const SEGMENT: usize = 1024;
/// Neighbours that tell how dense it is around a token.
const NEIGHBOURS: usize = 8;

/// A token that stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peak {
    /// Its place among the visual tokens.
    pub(super) place: usize,
    /// The places that it stands for, its own first.
    pub(super) members: Vec<usize>,
}

/// Chooses a share of 1 − `rate` of the tokens `[tokens, width]`, at least one; `frames` are the tokens of each frame, in
/// order. Peaks come in the order of their places.
///
/// # Errors
/// Where the device fails.
pub(super) fn peaks(tokens: &Tensor, frames: &[usize], rate: f64) -> Result<Vec<Peak>, ModelError> {
    let all = tokens.dim(0)?;
    let budget = ((all as f64 * (1.0 - rate)).round() as usize).clamp(all.min(1), all);
    let tokens = tokens.to_dtype(DType::F32)?;
    let mut peaks = Vec::with_capacity(budget);
    let mut start = 0;
    for length in segments(&tokens, frames)? {
        // What is spent by a segment's end is its share of the whole, rounded.
        let spent = |end: usize| (end as f64 / all as f64 * budget as f64).round() as usize;
        let count = spent(start + length) - spent(start);
        let distances = distances(&tokens.narrow(0, start, length)?)?;
        peaks.extend(of_segment(&distances, length, count).into_iter().map(|peak| Peak {
            place: peak.place + start,
            members: peak.members.into_iter().map(|member| member + start).collect(),
        }));
        start += length;
    }
    Ok(peaks)
}

/// The mean of each peak's members, `[peaks, width]`, in the tokens' type.
///
/// # Errors
/// Where the device fails.
pub(super) fn means(tokens: &Tensor, peaks: &[Peak]) -> Result<Tensor, ModelError> {
    let rows = peaks.iter().map(|peak| {
        let members: Vec<u32> = peak.members.iter().map(|&member| member as u32).collect();
        tokens.index_select(&Tensor::new(members, tokens.device())?, 0)?.mean(0)
    });
    Ok(Tensor::stack(&rows.collect::<Result<Vec<_>, _>>()?, 0)?)
}

/// Tokens of each segment: frames that follow each other and look alike.
fn segments(tokens: &Tensor, frames: &[usize]) -> Result<Vec<usize>, ModelError> {
    let (mut segments, mut start): (Vec<usize>, usize) = (Vec::new(), 0);
    let mut before: Option<Vec<f32>> = None;
    for &length in frames {
        let mean: Vec<f32> = tokens.narrow(0, start, length)?.mean(0)?.to_vec1()?;
        let goes_on = before.is_some_and(|before| cosine(&before, &mean) >= ALIKE);
        match segments.last_mut().filter(|segment| goes_on && **segment + length <= SEGMENT) {
            Some(segment) => *segment += length,
            None => segments.push(length),
        }
        start += length;
        before = Some(mean);
    }
    Ok(segments)
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f32::MIN_POSITIVE)
}

/// Squared distances between all tokens, row by row, over their width.
fn distances(tokens: &Tensor) -> Result<Vec<f32>, ModelError> {
    let (count, width) = tokens.dims2()?;
    let products: Vec<f32> = tokens.matmul(&tokens.t()?)?.flatten_all()?.to_vec1()?;
    let square = |at: usize| products[at * count + at];
    let distance = |at: usize| {
        let (a, b) = (at / count, at % count);
        (square(a) + square(b) - 2.0 * products[at]).max(0.0) / width as f32
    };
    Ok((0..count * count).map(distance).collect())
}

/// The `count` tokens that are dense and far from what is denser, each with those that are nearest to it.
fn of_segment(distances: &[f32], tokens: usize, count: usize) -> Vec<Peak> {
    let row = |token: usize| &distances[token * tokens..(token + 1) * tokens];
    let density: Vec<f32> = (0..tokens).map(|token| density(row(token))).collect();
    let denser = |other: usize, token: usize| (density[other], token) > (density[token], other);
    let score = |token: usize| {
        let apart = (0..tokens).filter(|&other| denser(other, token)).map(|other| row(token)[other]);
        let apart = apart.fold(f32::INFINITY, f32::min);
        // The densest of all is as far as anything is.
        let farthest = || row(token).iter().copied().fold(0.0, f32::max);
        density[token] * if apart.is_finite() { apart } else { farthest() }
    };
    let scores: Vec<f32> = (0..tokens).map(score).collect();
    let mut places: Vec<usize> = (0..tokens).collect();
    places.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    places.truncate(count);
    places.sort_unstable();
    let mut peaks: Vec<Peak> = places.iter().map(|&place| Peak { place, members: vec![place] }).collect();
    for token in (0..tokens).filter(|token| places.binary_search(token).is_err()) {
        let nearest = |a: &&mut Peak, b: &&mut Peak| row(token)[a.place].total_cmp(&row(token)[b.place]);
        if let Some(peak) = peaks.iter_mut().min_by(nearest) {
            peak.members.push(token);
        }
    }
    peaks
}

/// How near its nearest neighbours are: 1 for equal ones, towards 0 with the distance.
fn density(row: &[f32]) -> f32 {
    let mut near = row.to_vec();
    let last = NEIGHBOURS.min(near.len() - 1);
    near.select_nth_unstable_by(last, f32::total_cmp);
    // The token itself is among them, at distance 0.
    let sum: f32 = near[..=last].iter().sum();
    (-sum / last.max(1) as f32).exp()
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn tensor<const N: usize>(rows: [[f32; 2]; N]) -> Tensor {
        Tensor::new(&rows, &Device::Cpu).unwrap()
    }

    #[test]
    fn one_of_each_kind_stays_and_stands_for_all() {
        // Three kinds in two frames that look alike.
        let rows = [
            [1.0, 0.0],
            [0.0, 1.0],
            [0.6, 0.6],
            [1.02, 0.0],
            [0.0, 1.02],
            [1.0, 0.02],
            [0.62, 0.6],
            [1.01, 0.0],
        ];
        let tokens = tensor(rows);
        let peaks = peaks(&tokens, &[4, 4], 1.0 - 3.0 / 8.0).unwrap();
        let mut kinds: Vec<Vec<usize>> = peaks.iter().map(|peak| peak.members.clone()).collect();
        kinds.iter_mut().for_each(|members| members.sort_unstable());
        kinds.sort();
        assert_eq!(kinds, [vec![0, 3, 5, 7], vec![1, 4], vec![2, 6]]);
        assert!(peaks.windows(2).all(|pair| pair[0].place < pair[1].place));
        let means: Vec<Vec<f32>> = means(&tokens, &peaks).unwrap().to_vec2().unwrap();
        let of_first = peaks.iter().position(|peak| peak.members.contains(&0)).unwrap();
        assert!((means[of_first][0] - 1.0075).abs() < 1e-5 && (means[of_first][1] - 0.005).abs() < 1e-5);
    }

    #[test]
    fn frames_that_differ_are_segments_and_long_ones_are_cut() {
        let tokens = tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.0, 1.0]]);
        assert_eq!(segments(&tokens, &[1, 1, 2]).unwrap(), [2, 2]);
        let many = Tensor::ones((3 * 600, 2), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(segments(&many, &[600; 3]).unwrap(), [600; 3]);
    }

    #[test]
    fn as_many_as_the_rate_says_and_each_token_once() {
        let tokens = Tensor::rand(-1.0_f32, 1.0, (64, 6), &Device::Cpu).unwrap();
        for (rate, kept) in [(0.0, 64), (0.5, 32), (0.9, 6), (1.0, 1)] {
            let peaks = peaks(&tokens, &[16; 4], rate).unwrap();
            assert_eq!(peaks.len(), kept, "{rate}");
            let mut members: Vec<usize> = peaks.iter().flat_map(|peak| peak.members.clone()).collect();
            members.sort_unstable();
            members.dedup();
            assert!(peaks.iter().all(|peak| peak.members[0] == peak.place), "{rate}");
            // A segment without a share of the budget leaves its tokens out.
            assert!(members.len() == 64 || rate >= 0.9, "{rate}: {}", members.len());
        }
    }
}
