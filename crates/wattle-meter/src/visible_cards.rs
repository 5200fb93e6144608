//! Which NVIDIA cards a program may use: `CUDA_VISIBLE_DEVICES`, read as CUDA reads it.
//!
//! Rules (CUDA C++ programming guide, environment variables): entries are numbers or the beginnings of UUIDs; the first
//! entry that names nothing ends the list; absent means all, empty means none. Numbers count the fastest card first
//! unless `CUDA_DEVICE_ORDER=PCI_BUS_ID`; the driver's own library counts by bus. Which card is fastest cannot be known
//! from outside, so numbers among unlike cards without that setting are [ambiguous](Visible::ambiguous).

/// A card as the driver lists it, in order of the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Card {
    /// Such as `GPU-8f6a...`.
    pub(crate) uuid: String,
    /// The model's name.
    pub(crate) model: String,
    /// UUIDs of its instances where it is divided (MIG), such as `MIG-41b3...`.
    pub(crate) instances: Vec<String>,
}

/// What of the machine's cards a program sees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Visible {
    /// Places of the cards in the list, each once.
    pub(crate) cards: Vec<usize>,
    /// Cards of which only instances are seen: their energy is that of the whole card.
    pub(crate) shared: Vec<usize>,
    /// Whether the numbers may mean other cards than these.
    pub(crate) ambiguous: bool,
}

/// Reads the settings. `devices` is `CUDA_VISIBLE_DEVICES`, `order` is `CUDA_DEVICE_ORDER`.
pub(crate) fn visible(cards: &[Card], devices: Option<&str>, order: Option<&str>) -> Visible {
    let Some(devices) = devices else {
        return Visible { cards: (0..cards.len()).collect(), ..Visible::default() };
    };
    let unlike = cards.windows(2).any(|pair| pair[0].model != pair[1].model);
    let by_bus = order == Some("PCI_BUS_ID");
    let mut seen = Visible::default();
    for entry in devices.split(',').map(str::trim) {
        let number = entry.parse::<usize>().ok();
        let Some((card, whole)) = find(cards, entry, number) else { break };
        if seen.cards.contains(&card) && (whole || !seen.shared.contains(&card)) {
            break; // CUDA refuses a card that is named twice.
        }
        if !seen.cards.contains(&card) {
            seen.cards.push(card);
            if !whole {
                seen.shared.push(card);
            }
        }
        seen.ambiguous |= number.is_some() && unlike && !by_bus;
    }
    // All cards are all cards in any order.
    seen.ambiguous &= seen.cards.len() < cards.len();
    seen
}

/// The card that an entry names, and whether it names the whole of it.
fn find(cards: &[Card], entry: &str, number: Option<usize>) -> Option<(usize, bool)> {
    if let Some(number) = number {
        return (number < cards.len()).then_some((number, true));
    }
    let begins = |uuid: &String| uuid.starts_with(entry);
    if entry.starts_with("GPU-") {
        let mut found = (0..cards.len()).filter(|&card| begins(&cards[card].uuid));
        // A beginning that fits two cards names neither.
        return found.next().filter(|_| found.next().is_none()).map(|card| (card, true));
    }
    let instance = entry.strip_prefix("MIG-")?;
    // Drivers before 470 named instances after their card: MIG-GPU-<uuid>/<instance>/<part>.
    let parent = instance.starts_with("GPU-").then(|| instance.split('/').next()).flatten();
    let found = |card: &Card| match parent {
        Some(parent) => card.uuid == parent,
        None => card.instances.iter().any(begins),
    };
    cards.iter().position(found).map(|card| (card, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(uuid: &str, model: &str, instances: &[&str]) -> Card {
        let instances = instances.iter().map(|i| (*i).to_owned()).collect();
        Card { uuid: uuid.to_owned(), model: model.to_owned(), instances }
    }

    fn four() -> Vec<Card> {
        vec![
            card("GPU-ab12", "A100", &[]),
            card("GPU-ab34", "A100", &["MIG-c001", "MIG-c002"]),
            card("GPU-cd56", "A100", &[]),
            card("GPU-I56", "A100", &[]),
        ]
    }

    fn seen(devices: Option<&str>) -> Vec<usize> {
        visible(&four(), devices, None).cards
    }

    #[test]
    fn absent_is_all_empty_is_none_and_the_first_stranger_ends_the_list() {
        assert_eq!(seen(None), [0, 1, 2, 3]);
        assert!(seen(Some("")).is_empty());
        assert!(seen(Some("-1")).is_empty());
        assert_eq!(seen(Some("2, 0,-1,3")), [2, 0]);
        assert_eq!(seen(Some("1,9,0")), [1]);
        assert_eq!(seen(Some("1,1,0")), [1], "a card twice ends the list");
        assert!(seen(Some("nonsense")).is_empty());
    }

    #[test]
    fn the_beginning_of_a_uuid_names_a_card_if_it_fits_only_one() {
        // CodeCarbon strips the characters of `MIG-` from the left, which eats the G and I of names like these.
        assert_eq!(seen(Some("GPU-cd,GPU-I56")), [2, 3]);
        assert!(seen(Some("GPU-ab")).is_empty());
        assert_eq!(seen(Some("GPU-ab34")), [1]);
    }

    #[test]
    fn an_instance_leads_to_its_card_which_is_shared() {
        for devices in ["MIG-c002", "MIG-GPU-ab34/1/0", "MIG-c001,MIG-c002"] {
            let seen = visible(&four(), Some(devices), None);
            assert_eq!((seen.cards, seen.shared), (vec![1], vec![1]), "{devices}");
        }
        assert!(seen(Some("MIG-ffff")).is_empty());
    }

    #[test]
    fn numbers_of_unlike_cards_are_ambiguous_without_an_order() {
        let cards = [card("GPU-a", "T4", &[]), card("GPU-b", "A100", &[])];
        assert!(visible(&cards, Some("0"), None).ambiguous);
        assert!(!visible(&cards, Some("0"), Some("PCI_BUS_ID")).ambiguous);
        assert!(!visible(&cards, Some("0,1"), None).ambiguous, "both are both");
        assert!(!visible(&cards, Some("GPU-a"), None).ambiguous);
        assert!(!visible(&four(), Some("0"), None).ambiguous);
    }
}
