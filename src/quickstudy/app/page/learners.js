/* What each learner is, in a sentence, and where to read more. */

const arxiv = number => "https://arxiv.org/abs/" + number;

const LEARNERS = {
  "ProtoNet": ["A network places every drawing in a space, and the nearest class mean wins.",
    "Snell et al. 2017", arxiv("1703.05175")],
  "Matching network": ["Every example votes for its class, the more the closer it looks.",
    "Vinyals et al. 2016", arxiv("1606.04080")],
  "MAML": ["A network that starts where a few gradient steps on your examples suffice.",
    "Finn et al. 2017", arxiv("1703.03400")],
  "LSTM": ["A black box that reads your examples one after another, and then answers.",
    "Santoro et al. 2016", arxiv("1605.06065")],
  "Nearest pixels": ["No learning at all: the example with the most similar pixels wins.",
    "Cover & Hart 1967", "https://doi.org/10.1109/TIT.1967.1053964"],
  "Logistic": ["A linear layer on features of a trained network, fitted to your examples.",
    "Tian et al. 2020", arxiv("2003.11539")],
  "Ridge": ["A linear layer on the same features, solved exactly, in one go.",
    "Bertinetto et al. 2019", arxiv("1805.08136")],
  "Proto-MAML": ["A linear layer that starts from the class means, then takes gradient steps.",
    "Triantafillou et al. 2020", arxiv("1903.03096")],
  "Centroid": ["The nearest class mean of features wins: a ProtoNet whose network nobody trained for it.",
    "Wang et al. 2019", arxiv("1911.04623")],
  "Nearest features": ["No learning at all: the example with the most similar features wins.",
    "Cover & Hart 1967", "https://doi.org/10.1109/TIT.1967.1053964"],
};

/* `[sentence, paper, address]`; of a learner that someone trained, the sentence alone. */
export const about = name => LEARNERS[name] || ["A learner that you trained."];
