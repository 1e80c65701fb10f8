//! Walks every state a model can reach, breadth first, and looks back from the goals.

use std::{collections::HashMap, fmt::Debug, hash::Hash};

/// What is explored: states and the steps between them.
pub trait Model {
    type State: Clone + Eq + Hash;
    type Step: Clone + Debug;

    fn initial(&self) -> Self::State;

    /// Everything that may happen next.
    fn steps(&self, state: &Self::State) -> Vec<(Self::Step, Self::State)>;

    /// What is wrong with a state, if anything.
    fn broken(&self, state: &Self::State) -> Option<&'static str>;

    /// Whether nothing is left to do.
    fn is_goal(&self, state: &Self::State) -> bool;
}

/// What the exploration came to. Paths are shortest.
#[derive(Debug)]
pub enum Verdict<S> {
    /// No reachable state is broken, and from each a goal can be reached.
    Holds { states: usize, steps: usize },
    /// The steps that lead to a broken state.
    Broken(&'static str, Vec<S>),
    /// The steps that lead to where no goal can be reached any more.
    Stuck(Vec<S>),
}

struct Found<S> {
    from: Option<(usize, S)>,
    next: Vec<u32>,
    goal: bool,
}

/// Explores all of it.
pub fn explore<M: Model>(model: &M) -> Verdict<M::Step> {
    let mut numbers = HashMap::from([(model.initial(), 0_usize)]);
    let mut frontier = vec![model.initial()];
    let mut found = vec![Found {
        from: None,
        next: Vec::new(),
        goal: false,
    }];
    let (mut at, mut steps) = (0, 0);
    while !frontier.is_empty() {
        let mut reached = Vec::new();
        for state in frontier {
            found[at].goal = model.is_goal(&state);
            for (step, next) in model.steps(&state) {
                steps += 1;
                let number = *numbers.entry(next).or_insert_with_key(|next| {
                    reached.push(next.clone());
                    found.push(Found {
                        from: Some((at, step)),
                        next: Vec::new(),
                        goal: false,
                    });
                    found.len() - 1
                });
                found[at]
                    .next
                    .push(u32::try_from(number).expect("fewer states"));
            }
            at += 1;
        }
        let first = found.len() - reached.len();
        for (offset, state) in reached.iter().enumerate() {
            if let Some(what) = model.broken(state) {
                return Verdict::Broken(what, path(&found, first + offset));
            }
        }
        frontier = reached;
    }
    match stuck(&found) {
        Some(number) => Verdict::Stuck(path(&found, number)),
        None => Verdict::Holds {
            states: found.len(),
            steps,
        },
    }
}

/// The first state from which no goal can be reached.
fn stuck<S>(found: &[Found<S>]) -> Option<usize> {
    let mut before = vec![Vec::new(); found.len()];
    for (number, state) in found.iter().enumerate() {
        for &next in &state.next {
            before[next as usize].push(number);
        }
    }
    let mut able: Vec<bool> = found.iter().map(|state| state.goal).collect();
    let mut open: Vec<usize> = (0..found.len()).filter(|&number| able[number]).collect();
    while let Some(number) = open.pop() {
        for &earlier in &before[number] {
            if !able[earlier] {
                able[earlier] = true;
                open.push(earlier);
            }
        }
    }
    able.iter().position(|able| !able)
}

fn path<S: Clone>(found: &[Found<S>], mut number: usize) -> Vec<S> {
    let mut steps = Vec::new();
    while let Some((from, step)) = &found[number].from {
        steps.push(step.clone());
        number = *from;
    }
    steps.reverse();
    steps
}
