// The tiny model as a generator serves it.
#pragma once

#include <memory>
#include <string>

#include "generator_service/serve/served_model.h"
#include "tests/tiny_model.h"

namespace retro {

inline ServedModel TinyServedModel() {
  ServedModel served;
  served.model = MakeTinyModel();
  served.info.config = served.model->config();
  served.info.revision = std::string(64, 'a');
  served.tokenizer = std::make_shared<ByteTokenizer>();
  served.name = "tiny";
  return served;
}

}  // namespace retro
