//! How the model may spell an answer.
//!
//! A model that was trained to say `Yes.` gives `yes` little, although it means the same (surface
//! form competition, Holtzman et al. 2021): the weight of an answer is that of all its spellings.

/// Numbers as words, from nought.
const WORDS: [&str; 21] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
];

/// A choice as given, and with a large or small first letter.
pub fn of_text(text: &str) -> Vec<String> {
    let text = text.trim();
    let mut spellings = vec![text.to_owned()];
    let mut characters = text.chars();
    if let Some(first) = characters.next() {
        let rest = characters.as_str();
        add(&mut spellings, format!("{}{rest}", first.to_uppercase()));
        add(&mut spellings, format!("{}{rest}", first.to_lowercase()));
    }
    spellings
}

/// A number in digits, and up to twenty in English words.
pub fn of_number(number: u32) -> Vec<String> {
    let mut spellings = vec![number.to_string()];
    let word = usize::try_from(number).ok().and_then(|n| WORDS.get(n));
    let none = (number == 0).then_some("none");
    for word in word.copied().into_iter().chain(none) {
        of_text(word)
            .into_iter()
            .for_each(|spelling| add(&mut spellings, spelling));
    }
    spellings
}

fn add(spellings: &mut Vec<String>, spelling: String) {
    if !spellings.contains(&spelling) {
        spellings.push(spelling);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_spelt_as_given_and_with_either_first_letter() {
        assert_eq!(of_text(" yes "), ["yes", "Yes"]);
        assert_eq!(of_text("No one"), ["No one", "no one"]);
        assert_eq!(of_text("élan"), ["élan", "Élan"]);
        assert_eq!(of_text("24"), ["24"]);
    }

    #[test]
    fn small_numbers_have_words() {
        assert_eq!(of_number(0), ["0", "zero", "Zero", "none", "None"]);
        assert_eq!(of_number(20), ["20", "twenty", "Twenty"]);
        assert_eq!(of_number(21), ["21"]);
    }
}
