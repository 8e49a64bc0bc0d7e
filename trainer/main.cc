// retro-train: makes data sets with neighbours, and trains models on them.
#include "trainer/command.h"

int main(int argc, char** argv) {
  return retro::RunProgram("retro-train", "Prepares training data with neighbours, and trains RETRO models on it.",
                           {retro::AddPrepareCommand, retro::AddRunCommand, retro::AddFitCommand}, argc, argv);
}
