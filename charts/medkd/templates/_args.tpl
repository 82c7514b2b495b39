{{/* Flags that every stage takes. */}}
{{- define "medkd.args.shared" -}}
- --config=/etc/medkd/model_configs.json
- {{ printf "--prefix=%s" (include "medkd.prefix" .) | quote }}
{{- include "medkd.args.storage" . }}
{{- if ne .Values.logLevel "INFO" }}
- --log-level={{ .Values.logLevel }}
{{- end }}
{{- end }}

{{/* What the store's writes ask for, in s3fs's own words. */}}
{{- define "medkd.args.storage" -}}
{{- with .Values.storage.encryption }}
{{- if .type }}
{{- $extra := dict "ServerSideEncryption" .type }}
{{- if .kmsKeyId }}{{ $_ := set $extra "SSEKMSKeyId" .kmsKeyId }}{{ end }}
- {{ printf "--storage-options=%s" (dict "s3_additional_kwargs" $extra | toJson) | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- define "medkd.args.student" -}}
- {{ printf "--student=%s" .Values.student.name | quote }}
{{- end }}

{{/* Where the data sets of other runs lie: a name stands for the run beside this one. */}}
{{- define "medkd.args.dataset" -}}
{{- range .Values.dataset.from }}
- {{ printf "--dataset-from=%s" (ternary . (printf "%s/%s" (trimSuffix "/" $.Values.storage.prefix) .) (contains "/" .)) | quote }}
{{- end }}
{{- end }}

{{/* Teacher's address and the run's money. */}}
{{- define "medkd.args.teacher" -}}
{{- with .Values.teacher.baseUrl }}
- {{ printf "--teacher-url=%s" . | quote }}
{{- end }}
{{- if not (kindIs "invalid" .Values.teacher.budgetUsd) }}
- --budget-usd={{ toJson .Values.teacher.budgetUsd }}
{{- end }}
- --parallel={{ min (int64 .Values.generate.parallelism) (int64 .Values.generate.shards) }}
{{- end }}

{{/* What the samples of the run will be: the flags of plan and of its rehearsal, preflight. */}}
{{- define "medkd.args.plan" -}}
{{ include "medkd.args.shared" . }}
- {{ printf "--teacher=%s" (include "medkd.teacher" .) | quote }}
{{ include "medkd.args.teacher" . | trim }}
{{ include "medkd.args.student" . }}
- --num-shards={{ int64 .Values.generate.shards }}
- --seed={{ int64 .Values.plan.seed }}
{{- with .Values.plan.numSamples }}
- --num-samples={{ int64 . }}
{{- end }}
{{- range .Values.plan.topics }}
- {{ printf "--topic=%s" . | quote }}
{{- end }}
{{- range .Values.plan.heldOutTopics }}
- {{ printf "--held-out-topic=%s" . | quote }}
{{- end }}
{{- with .Values.plan.numTopics }}
- --num-topics={{ int64 . }}
{{- end }}
{{- with .Values.plan.exchanges }}
- --exchanges={{ . }}
{{- end }}
{{- if .Values.plan.recordSchema }}
- --record-schema=/etc/medkd/record_schema.json
{{- end }}
{{- with include "medkd.args.dataset" . | trim }}
{{ . }}
{{- end }}
{{- with .Values.train.gpuMemoryGib }}
- --gpu-memory-gib={{ toJson . }}
- --world-size={{ mul $.Values.train.nodes $.Values.train.gpusPerNode }}
{{- end }}
{{- with .Values.conversations }}
{{- range .files }}
- {{ printf "--conversations=%s" . | quote }}
{{- end }}
{{- if .files }}
- {{ printf "--conversation-column=%s" .conversationColumn | quote }}
- --contains-phi={{ include "medkd.containsPhi" $ }}
{{- end }}
{{- range $flag, $column := dict "id-column" .idColumn "record-column" .recordColumn "topic-column" .topicColumn "gold-column" .goldColumn }}
{{- if $column }}
- {{ printf "--%s=%s" $flag $column | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
