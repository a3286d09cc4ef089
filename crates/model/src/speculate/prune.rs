//! Which visual tokens a draft may do without, from how much the target's text looks at each of them. After the two
//! stages of SpecVLM (arXiv 2508.16201): the few that hold most of the attention, and of the others every so many-th, so that
//! no part of the video goes missing.

/// The share of the attention that the first stage is after.
const FOCUS: f64 = 0.4;

/// Places of the tokens to keep, rising: a share of 1 − `rate` of them, at least one.
pub(crate) fn kept(attention: &[f32], rate: f64) -> Vec<usize> {
    let all = attention.len();
    let budget = ((all as f64 * (1.0 - rate)).round() as usize).clamp(all.min(1), all);
    let mut chosen = vec![false; all];
    let focus = focus(attention, budget);
    focus.iter().for_each(|&place| chosen[place] = true);
    let rest: Vec<usize> = (0..all).filter(|&place| !chosen[place]).collect();
    let open = budget - focus.len();
    // One stride over what is left: the middles of equal parts.
    (0..open).for_each(|part| chosen[rest[(2 * part + 1) * rest.len() / (2 * open)]] = true);
    (0..all).filter(|&place| chosen[place]).collect()
}

/// The fewest tokens that hold [`FOCUS`] of the attention, cut to the budget.
fn focus(attention: &[f32], budget: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..attention.len()).collect();
    places.sort_by(|&a, &b| attention[b].total_cmp(&attention[a]).then(a.cmp(&b)));
    let total: f64 = attention.iter().map(|&mass| f64::from(mass)).sum();
    let mut mass = 0.0;
    let needed = places.iter().take_while(|&&place| {
        let short = mass < FOCUS * total;
        mass += f64::from(attention[place]);
        short
    });
    let needed = needed.count().min(budget);
    places.truncate(needed);
    places
}

/// Places of the `count` largest, rising.
pub(crate) fn largest(attention: &[f32], count: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..attention.len()).collect();
    places.sort_by(|&a, &b| attention[b].total_cmp(&attention[a]).then(a.cmp(&b)));
    places.truncate(count);
    places.sort_unstable();
    places
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn first_what_is_looked_at_then_evenly_the_rest() {
        let mut attention = vec![0.01_f32; 100];
        attention[17] = 5.0;
        attention[63] = 4.0;
        let kept = kept(&attention, 0.9);
        assert_eq!(kept.len(), 10);
        assert!(kept.contains(&17));
        // 17 alone holds 40 %; the other nine are spread out.
        let gaps = kept.windows(2).map(|pair| pair[1] - pair[0]).max();
        assert!(gaps < Some(20), "{kept:?}");
    }

    #[test]
    fn even_attention_fills_the_budget_with_the_first_stage_and_no_more() {
        assert_eq!(kept(&[1.0; 10], 0.7).len(), 3);
        assert_eq!(kept(&[0.0; 10], 0.5), [1, 3, 5, 7, 9]);
        assert_eq!(kept(&[1.0; 4], 0.0), [0, 1, 2, 3]);
        assert_eq!(kept(&[1.0; 4], 0.99).len(), 1);
        assert_eq!(kept(&[], 0.9), [0; 0]);
        assert_eq!(largest(&[0.1, 3.0, 0.2, 3.0], 3), [1, 2, 3]);
    }

    proptest! {
        #[test]
        fn as_many_as_the_rate_says(
            attention in prop::collection::vec(0.0_f32..1.0, 1..300),
            rate in prop::sample::select(vec![0.0, 0.5, 0.8, 0.9, 1.0]),
        ) {
            let kept = kept(&attention, rate);
            let budget = ((attention.len() as f64 * (1.0 - rate)).round() as usize).max(1);
            prop_assert_eq!(kept.len(), budget);
            prop_assert!(kept.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }
}
