//! What the answers came to: accuracy by length and strategy with intervals, and what it cost.

use spectemp_pages::DemoCell;
use spectemp_types::Totals;

/// One question put to one strategy, and what came of it.
#[derive(Clone, Debug)]
pub(super) struct Scored {
    /// The strategy.
    pub(super) strategy: &'static str,
    /// Length of the video in seconds.
    pub(super) seconds: u32,
    /// Whether the answer is right.
    pub(super) right: bool,
    /// What it cost; none where the job failed.
    pub(super) totals: Option<Totals>,
}

/// z of a two-sided interval of 95 %.
const Z: f64 = 1.959_964;

/// Wilson's 95 % interval of a share of `right` out of `count`.
/// Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
pub(super) fn wilson(right: u32, count: u32) -> (f64, f64) {
    if count == 0 {
        return (0.0, 1.0);
    }
    let (n, share) = (f64::from(count), f64::from(right) / f64::from(count));
    let scale = 1.0 + Z * Z / n;
    let centre = (share + Z * Z / (2.0 * n)) / scale;
    let half = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt() / scale;
    ((centre - half).max(0.0), (centre + half).min(1.0))
}

/// Lengths that are told together, with their name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) seconds: std::ops::RangeInclusive<u32>,
}

/// Most lengths that each get a row of their own.
const OWN_ROWS: usize = 6;
/// Otherwise they are told in so many groups.
const GROUPS: usize = 3;

/// The groups of the videos' lengths, and all of them together where there are several.
pub(super) fn groups(mut seconds: Vec<u32>) -> Vec<Group> {
    seconds.sort_unstable();
    seconds.dedup();
    let mut groups = by_length(&seconds);
    if let ([first, _, ..], Some(last)) = (&seconds[..], seconds.last()) {
        groups.push(Group { name: "all".to_owned(), seconds: *first..=*last });
    }
    groups
}

/// Each length by itself where they are few, else three groups of about the same size.
fn by_length(seconds: &[u32]) -> Vec<Group> {
    if seconds.len() <= OWN_ROWS {
        return seconds.iter().map(|s| Group { name: format!("{s} s"), seconds: *s..=*s }).collect();
    }
    let chunk = seconds.len().div_ceil(GROUPS);
    let group = |part: &[u32]| {
        let (first, last) = (part[0], part[part.len() - 1]);
        Group { name: format!("{first}–{last} s"), seconds: first..=last }
    };
    seconds.chunks(chunk).map(group).collect()
}

/// A cell for each group and strategy.
pub(super) fn cells(scored: &[Scored], groups: &[Group], strategies: &[&'static str]) -> Vec<DemoCell> {
    let cell = |group: &Group, strategy: &'static str| {
        let of_cell = |one: &&Scored| one.strategy == strategy && group.seconds.contains(&one.seconds);
        cell(&group.name, strategy, &scored.iter().filter(of_cell).collect::<Vec<_>>())
    };
    groups.iter().flat_map(|group| strategies.iter().map(move |strategy| cell(group, strategy))).collect()
}

fn cell(length: &str, strategy: &str, scored: &[&Scored]) -> DemoCell {
    let (questions, right) = (scored.len() as u32, scored.iter().filter(|one| one.right).count() as u32);
    let totals: Vec<&Totals> = scored.iter().filter_map(|one| one.totals.as_ref()).collect();
    let mean =
        |of: fn(&Totals) -> f64| totals.iter().map(|one| of(one)).sum::<f64>() / totals.len().max(1) as f64;
    let (low, high) = wilson(right, questions);
    DemoCell {
        length: length.to_owned(),
        strategy: strategy.to_owned(),
        questions,
        right,
        low,
        high,
        frames: mean(|one| f64::from(one.target_frames)),
        bytes: mean(|one| one.io.bytes as f64),
        seconds: mean(|one| one.times.sum_ms() / 1000.0),
    }
}

/// The lengths at which the interval of `strategy` lies above those of all others.
pub(super) fn apart(cells: &[DemoCell], strategy: &str) -> Vec<String> {
    let (own, others): (Vec<&DemoCell>, Vec<&DemoCell>) =
        cells.iter().partition(|cell| cell.strategy == strategy);
    let above = |cell: &&&DemoCell| {
        others.iter().filter(|other| other.length == cell.length).all(|other| other.high < cell.low)
    };
    own.iter().filter(above).map(|cell| cell.length.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: (f64, f64), wanted: (f64, f64)) -> bool {
        (found.0 - wanted.0).abs() < 5e-4 && (found.1 - wanted.1).abs() < 5e-4
    }

    #[test]
    fn wilson_is_what_the_tables_say() {
        assert!(close(wilson(0, 10), (0.0, 0.2775)));
        assert!(close(wilson(10, 10), (0.7225, 1.0)));
        assert!(close(wilson(95, 100), (0.8882, 0.9785)));
        assert!(close(wilson(0, 0), (0.0, 1.0)));
    }

    #[test]
    fn few_lengths_stand_for_themselves_and_many_are_grouped() {
        let names =
            |seconds: &[u32]| groups(seconds.to_vec()).into_iter().map(|g| g.name).collect::<Vec<_>>();
        assert_eq!(names(&[300, 64, 300, 64]), ["64 s", "300 s", "all"]);
        assert_eq!(names(&[60, 70, 80, 90, 100, 110, 120, 130]), ["60–80 s", "90–110 s", "120–130 s", "all"]);
        assert_eq!(names(&[64, 64]), ["64 s"]);
        assert!(names(&[]).is_empty());
    }

    #[test]
    fn a_cell_counts_failed_jobs_as_wrong_and_leaves_them_out_of_the_costs() {
        let totals = |frames| Some(Totals { target_frames: frames, ..Totals::default() });
        let one = |right, totals| Scored { strategy: "spectemp", seconds: 64, right, totals };
        let scored = [one(true, totals(10)), one(true, totals(14)), one(false, None)];
        let cells = cells(&scored, &groups(vec![64]), &["spectemp", "uniform"]);
        assert_eq!((cells[0].questions, cells[0].right, cells[0].frames), (3, 2, 12.0));
        assert_eq!((cells[1].questions, cells[1].frames), (0, 0.0));
    }

    #[test]
    fn intervals_that_touch_are_not_apart() {
        let with = |length: &str, strategy: &str, right| {
            let (low, high) = wilson(right, 100);
            DemoCell { low, high, right, ..cell(length, strategy, &[]) }
        };
        let cells = [
            with("64 s", "spectemp", 99),
            with("64 s", "uniform", 50),
            with("300 s", "spectemp", 60),
            with("300 s", "uniform", 50),
        ];
        assert_eq!(apart(&cells, "spectemp"), ["64 s"]);
    }
}
