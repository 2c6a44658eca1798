//! Where labels stand: each is a flag on a pole over its instant. No two cover each other, and no
//! pole runs through a label.

use std::cmp::Ordering;

use super::scale::LEAST_WIDTH;

/// The most rows of labels above a lane; what finds no room in them goes without a label.
pub(super) const ROWS: usize = 5;
/// The width of a character, generously.
const CHARACTER: f64 = 6.4;
/// From the pole to the text, and from the text to what stands beside it.
const MARGIN: f64 = 5.0;
/// How far beyond the chart's edge a label may reach.
const BEYOND: f64 = 6.0;

/// A label that wants a place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    /// Where its pole stands, in pixels at the least width.
    pub(super) at: f64,
    /// How many characters it has.
    pub(super) characters: usize,
    /// The lesser prevails.
    pub(super) rank: u8,
}

/// The place of a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Its row, from the lowest.
    pub(super) row: usize,
    /// Whether it stands left of its pole.
    pub(super) left: bool,
}

type Interval = (f64, f64);

fn pole(wish: &Wish) -> Interval {
    (wish.at - 1.0, wish.at + 1.0)
}

fn label(wish: &Wish, left: bool) -> Interval {
    let width = wish.characters as f64 * CHARACTER + 2.0 * MARGIN;
    if left { (wish.at - width, wish.at - 1.0) } else { (wish.at + 1.0, wish.at + width) }
}

fn apart(a: Interval, b: Interval) -> bool {
    a.1 <= b.0 || b.1 <= a.0
}

/// A place for each wish for which there is one; where there is none, the weightier prevail.
///
/// From right to left each label takes the lowest row that is free to its right. Then the poles of
/// those further left pass by the labels below them, never through one. What would reach over the
/// right edge comes last, and turns to the left.
pub(super) fn place(wishes: &[Wish]) -> Vec<Option<Place>> {
    let mut order: Vec<_> = (0..wishes.len()).filter(|n| wishes[*n].characters > 0).collect();
    order.sort_by_key(|n| wishes[*n].rank);
    let (right, left): (Vec<_>, Vec<_>) =
        order.into_iter().partition(|n| label(&wishes[*n], false).1 <= LEAST_WIDTH + BEYOND);

    let mut places = vec![None; wishes.len()];
    let mut chosen: Vec<usize> = Vec::new();
    for n in right {
        let at = chosen.partition_point(|other| wishes[*other].at > wishes[n].at);
        chosen.insert(at, n);
        if from_the_right(wishes, &chosen).is_none() {
            chosen.remove(at);
        }
    }
    for (n, row) in from_the_right(wishes, &chosen).unwrap_or_default() {
        places[n] = Some(Place { row, left: false });
    }
    for n in left {
        places[n] = turned(wishes, &places, &wishes[n]);
    }
    places
}

/// The row of each of the `chosen`, which stand in order from the right; none if they are too many.
fn from_the_right(wishes: &[Wish], chosen: &[usize]) -> Option<Vec<(usize, usize)>> {
    let mut ends = [f64::INFINITY; ROWS];
    let row = |n: &usize| {
        let own = label(&wishes[*n], false);
        let row = ends.iter().position(|end| own.1 <= *end)?;
        ends[row] = own.0;
        // In the rows below its pole is in the way.
        for end in &mut ends[..row] {
            *end = end.min(pole(&wishes[*n]).0);
        }
        Some((*n, row))
    };
    chosen.iter().map(row).collect()
}

/// The lowest row in which a label left of its pole is in nobody's way.
fn turned(wishes: &[Wish], places: &[Option<Place>], wish: &Wish) -> Option<Place> {
    let own = label(wish, true);
    let free = |row: &usize| {
        let placed = wishes.iter().zip(places).filter_map(|(wish, place)| Some((wish, (*place)?)));
        own.0 >= -BEYOND
            && placed.into_iter().all(|(other, there)| match there.row.cmp(row) {
                Ordering::Equal => apart(own, label(other, there.left)),
                Ordering::Greater => apart(own, pole(other)),
                Ordering::Less => apart(pole(wish), label(other, there.left)),
            })
    };
    (0..ROWS).find(free).map(|row| Place { row, left: true })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_label_covers_another_nor_stands_on_a_pole_nor_leaves_the_chart(
            wishes in proptest::collection::vec(
                (0.0..LEAST_WIDTH, 0usize..30, 0u8..9)
                    .prop_map(|(at, characters, rank)| Wish { at, characters, rank }), 0..40),
        ) {
            let places = place(&wishes);
            let placed: Vec<_> =
                wishes.iter().zip(&places).filter_map(|(w, p)| Some((w, (*p)?))).collect();
            for (n, (wish, at)) in placed.iter().enumerate() {
                let own = label(wish, at.left);
                prop_assert!(own.0 >= -BEYOND && own.1 <= LEAST_WIDTH + BEYOND);
                for (other, there) in &placed[..n] {
                    let others = label(other, there.left);
                    prop_assert!(at.row != there.row || apart(own, others));
                    prop_assert!(there.row <= at.row || apart(own, pole(other)));
                    prop_assert!(at.row <= there.row || apart(others, pole(wish)));
                }
            }
        }

        #[test]
        fn the_weightiest_of_a_crowd_has_its_label(
            at in 0.0..800.0, crowd in proptest::collection::vec(0.0..LEAST_WIDTH, 0..60),
        ) {
            let light = |at| Wish { at, characters: 12, rank: 5 };
            let mut wishes: Vec<_> = crowd.into_iter().map(light).collect();
            wishes.push(Wish { at, characters: 20, rank: 0 });
            prop_assert!(place(&wishes).last().unwrap().is_some());
        }
    }
}
