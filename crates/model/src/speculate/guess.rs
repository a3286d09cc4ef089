//! Guessed tokens in the form of a tree: each follows another guess, or what is decided already.

/// Guesses, parents before their children.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Guess {
    ids: Vec<u32>,
    /// The guess that each one follows; none where it follows what is decided.
    parents: Vec<Option<usize>>,
}

impl Guess {
    /// One guess after the other.
    pub(crate) fn chain(ids: Vec<u32>) -> Self {
        let parents = (0..ids.len()).map(|place| place.checked_sub(1)).collect();
        Self { ids, parents }
    }

    /// Adds one, and gives its place.
    pub(crate) fn push(&mut self, id: u32, parent: Option<usize>) -> usize {
        self.ids.push(id);
        self.parents.push(parent);
        self.ids.len() - 1
    }

    pub(crate) fn ids(&self) -> &[u32] {
        &self.ids
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The guess that each one follows.
    pub(crate) fn parents(&self) -> &[Option<usize>] {
        &self.parents
    }

    /// Guesses that come before this one on its path.
    pub(crate) fn depth(&self, place: usize) -> usize {
        self.path(place).len() - 1
    }

    /// The guesses from the first to this one.
    pub(crate) fn path(&self, place: usize) -> Vec<usize> {
        let mut path: Vec<usize> = std::iter::successors(Some(place), |&place| self.parents[place]).collect();
        path.reverse();
        path
    }

    /// The guess of `id` that follows `parent`.
    pub(crate) fn child(&self, parent: Option<usize>, id: u32) -> Option<usize> {
        (0..self.ids.len()).find(|&place| self.parents[place] == parent && self.ids[place] == id)
    }

    /// Whether any guess follows `parent`.
    pub(crate) fn goes_on(&self, parent: Option<usize>) -> bool {
        self.parents.contains(&parent)
    }

    /// Whether no guess has a sibling.
    pub(crate) fn is_chain(&self) -> bool {
        self.parents.iter().enumerate().all(|(place, parent)| *parent == place.checked_sub(1))
    }

    /// The part of it whose paths hold in full: `admits` tells how many of a path's tokens do.
    pub(crate) fn pruned<E>(&self, mut admits: impl FnMut(&[u32]) -> Result<usize, E>) -> Result<Self, E> {
        let mut kept = Self::default();
        let mut places: Vec<Option<usize>> = vec![None; self.ids.len()];
        for place in 0..self.ids.len() {
            let parent = self.parents[place];
            let stands = parent.is_none_or(|parent| places[parent].is_some());
            let path: Vec<u32> = self.path(place).into_iter().map(|place| self.ids[place]).collect();
            if stands && admits(&path)? == path.len() {
                places[place] = Some(kept.push(self.ids[place], parent.and_then(|parent| places[parent])));
            }
        }
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Guess {
        let mut tree = Guess::default();
        let a = tree.push(1, None);
        let b = tree.push(2, None);
        let c = tree.push(3, Some(a));
        tree.push(3, Some(b));
        tree.push(4, Some(c));
        tree
    }

    #[test]
    fn paths_children_and_depths() {
        let tree = tree();
        assert_eq!(tree.path(4), [0, 2, 4]);
        assert_eq!((tree.depth(0), tree.depth(4)), (0, 2));
        assert_eq!(tree.child(None, 2), Some(1));
        assert_eq!(tree.child(Some(1), 3), Some(3));
        assert_eq!(tree.child(Some(1), 4), None);
        assert!(!tree.is_chain() && Guess::chain(vec![7, 8]).is_chain());
        assert_eq!(Guess::chain(vec![7, 8]).parents(), [None, Some(0)]);
    }

    #[test]
    fn what_hangs_on_a_refused_guess_goes_with_it() {
        let admits = |path: &[u32]| Ok::<_, ()>(if path.starts_with(&[1, 3]) { 1 } else { path.len() });
        let pruned = tree().pruned(admits).unwrap();
        assert_eq!(pruned.ids(), [1, 2, 3]);
        assert_eq!(pruned.parents(), [None, None, Some(1)]);
    }
}
