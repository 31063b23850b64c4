//! Day 16: programs for the kernel's small machine: classic BPF. (bpf(4) of the BSDs; kernel:
//! networking/filter, "BPF engine and instruction set")
//!
//! It has one register of 32 bits (and more that is not needed here), and can jump forward alone. So
//! every program ends, and the kernel need not prove that. A jump on a condition has one byte for
//! each of its two distances, 255 instructions at most. That is what makes the layout of a larger
//! program a question, and why it is built from its end: what is jumped to is there already.

// ANCHOR: instruction
/// An instruction, as the kernel has it in memory: `struct sock_filter`. (linux/filter.h)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// If a condition holds: how many instructions are skipped.
    pub yes: u8,
    /// If not.
    pub no: u8,
    /// With which number.
    pub number: u32,
}

/// register = the 32 bits that are so many bytes into the question
pub const LOAD: u16 = 0x20;
/// register = register & number
pub const AND: u16 = 0x54;
/// Skips so many instructions.
pub const GO: u16 = 0x05;
/// Is the register equal to the number?
pub const IF_EQUAL: u16 = 0x15;
/// Is it greater?
pub const IF_GREATER: u16 = 0x25;
/// Is it greater, or equal?
pub const IF_AT_LEAST: u16 = 0x35;
/// The answer, and the end.
pub const RETURN: u16 = 0x06;

/// Where in the question, `struct seccomp_data`, the number of the call is. (linux/seccomp.h)
pub const NUMBER: u32 = 0;
/// By whose numbers it is made.
pub const ARCHITECTURE: u32 = 4;
/// Its first argument: there are six, of 64 bits each.
pub const ARGUMENTS: u32 = 16;
// ANCHOR_END: instruction

/// More than that the kernel does not take. (linux/bpf_common.h, BPF_MAXINSNS)
pub const LONGEST: usize = 4096;

/// How far a jump on a condition reaches.
const REACH: usize = u8::MAX as usize;

impl Instruction {
    /// As bytes.
    pub fn bytes(self) -> [u8; 8] {
        let [c1, c2] = self.code.to_ne_bytes();
        let [n1, n2, n3, n4] = self.number.to_ne_bytes();
        [c1, c2, self.yes, self.no, n1, n2, n3, n4]
    }

    /// From these bytes.
    pub fn from_bytes([c1, c2, yes, no, n1, n2, n3, n4]: [u8; 8]) -> Instruction {
        Instruction {
            code: u16::from_ne_bytes([c1, c2]),
            yes,
            no,
            number: u32::from_ne_bytes([n1, n2, n3, n4]),
        }
    }
}

// ANCHOR: builder
/// A program, from its end to its beginning.
#[derive(Debug, Default)]
pub struct Builder {
    backwards: Vec<Instruction>,
}

/// A place in a program that one can go on at: counted from the end, for what comes before it may
/// still grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(usize);

impl Builder {
    /// Puts `instruction` before all that is there.
    fn put(&mut self, code: u16, number: u32) -> Place {
        self.backwards.push(Instruction { code, yes: 0, no: 0, number });
        Place(self.backwards.len())
    }

    /// How many instructions are between what is put next, and `place`.
    fn distance(&self, place: Place) -> usize {
        self.backwards.len() - place.0
    }

    /// `number` is returned. One instruction does that for all that can reach it.
    pub fn answer(&mut self, number: u32) -> Place {
        let is_it = |instruction: &Instruction| instruction.code == RETURN && instruction.number == number;
        match self.backwards.iter().rposition(is_it).map(|at| Place(at + 1)) {
            // (As what follows adds to the distance, not up to the very last.)
            Some(place) if self.distance(place) < REACH / 2 => place,
            _ => self.put(RETURN, number),
        }
    }

    /// Loads what is `offset` bytes into the question, and goes on at `then`.
    pub fn load(&mut self, offset: u32, then: Place) -> Place {
        self.fall_into(then);
        self.put(LOAD, offset)
    }

    /// Leaves of the register only the bits of `mask`, and goes on at `then`.
    pub fn and(&mut self, mask: u32, then: Place) -> Place {
        self.fall_into(then);
        self.put(AND, mask)
    }

    /// Whatever is put next, if it does not jump, goes on at `place`.
    fn fall_into(&mut self, place: Place) {
        if self.distance(place) > 0 {
            self.put(GO, self.distance(place) as u32);
        }
    }
}
// ANCHOR_END: builder

// ANCHOR: branch
impl Builder {
    /// Compares the register with `number`, and goes on at `yes` or at `no`. What is too far away
    /// for that is reached by a jump without a condition, which has 32 bits for its distance.
    pub fn branch(&mut self, condition: u16, number: u32, yes: Place, no: Place) -> Place {
        // ANCHOR: day16_task3_branch_solution
        let yes = self.within_reach(yes);
        let no = self.within_reach(no);
        let (yes, no) = (self.distance(yes) as u8, self.distance(no) as u8);
        self.backwards.push(Instruction { code: condition, yes, no, number });
        Place(self.backwards.len())
        // ANCHOR_END: day16_task3_branch_solution
    }

    /// A place from which `place` is reached, itself if it is near enough. Near enough leaves room
    /// for one more such jump, the other way's.
    fn within_reach(&mut self, place: Place) -> Place {
        // ANCHOR: day16_task3_within_reach_solution
        if self.distance(place) < REACH {
            return place;
        }
        self.put(GO, self.distance(place) as u32)
        // ANCHOR_END: day16_task3_within_reach_solution
    }

    /// The program that begins at `first`.
    pub fn finish(mut self, first: Place) -> Vec<Instruction> {
        // ANCHOR: day16_task3_finish_solution
        self.fall_into(first);
        self.backwards.reverse();
        self.backwards
        // ANCHOR_END: day16_task3_finish_solution
    }
}
// ANCHOR_END: branch

/// What `program` answers to a question of sixteen numbers, as the kernel would run it.
#[cfg(test)]
pub fn run(program: &[Instruction], question: &[u32; 16]) -> (u32, usize) {
    let (mut register, mut at, mut steps) = (0, 0, 0);
    loop {
        let Instruction { code, yes, no, number } = program[at];
        let mut skip = |holds: bool| at += usize::from(if holds { yes } else { no });
        steps += 1;
        match code {
            LOAD => register = question[number as usize / 4],
            AND => register &= number,
            GO => at += number as usize,
            IF_EQUAL => skip(register == number),
            IF_GREATER => skip(register > number),
            IF_AT_LEAST => skip(register >= number),
            RETURN => return (number, steps),
            _ => panic!("no such instruction: {code:#x}"),
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::{Builder, IF_EQUAL, NUMBER, run};

    #[test]
    fn what_is_far_away_is_reached_all_the_same() {
        for calls in [1_u32, 2, 100, 254, 255, 256, 257, 1000, 1900] {
            let mut builder = Builder::default();
            let (yes, no) = (builder.answer(1), builder.answer(2));
            let chain = (0..calls).fold(no, |next, number| builder.branch(IF_EQUAL, number, yes, next));
            let first = builder.load(NUMBER, chain);
            let program = builder.finish(first);
            for number in [0, calls / 2, calls - 1] {
                assert_eq!(run(&program, &question(number)).0, 1, "{number} of {calls}");
            }
            assert_eq!(run(&program, &question(calls)).0, 2, "of {calls}");
        }
    }

    fn question(number: u32) -> [u32; 16] {
        let mut question = [0; 16];
        question[0] = number;
        question
    }
}
